"""What a test asks for, as values: frozen, hashable, compared by value, without input or output.

What is wrong with a `Node` or a `Network` is kept in its `fault` and raised by the `Topology` that gives it a name:
only there can the error say which node it is about.
"""

from __future__ import annotations

import copy
import ipaddress
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pytest_nspawn import checks
from pytest_nspawn.checks import parse_size
from pytest_nspawn.errors import ConfigError
from pytest_nspawn.frozen import FrozenMap

__all__ = [
    "Bind",
    "CommandResult",
    "Config",
    "ConfigKind",
    "FileContent",
    "Network",
    "NetworkLike",
    "NetworkName",
    "Node",
    "NodeLike",
    "Store",
    "Topology",
    "as_network",
    "as_node",
    "config_kind",
    "parse_size",
]

StrPath: TypeAlias = str | os.PathLike[str]
Config: TypeAlias = str | Path
FileContent: TypeAlias = str | bytes | tuple[str | bytes, int]
NetworkName: TypeAlias = int | str
ConfigKind: TypeAlias = Literal["system", "expression", "flake", "path", "name"]
Store: TypeAlias = Literal["host", "closure", "writable"]


def line_of(command: str | tuple[str, ...]) -> str:
    """A command as a shell would take it."""
    return command if isinstance(command, str) else shlex.join(command)


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What came of a command in a node; `duration` is in seconds."""

    command: str | tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    duration: float
    node: str

    @property
    def command_line(self) -> str:
        """The command, likewise."""
        return line_of(self.command)

    def __repr__(self) -> str:
        line = self.command_line
        short = line if len(line) <= 80 else f"{line[:77]}..."
        return (
            f"CommandResult({self.node}: {short!r}, exit_code={self.exit_code}, duration={self.duration:.3f})"
        )


@dataclass(frozen=True, slots=True, init=False)
class Bind:
    """A file or directory of the machine inside a node; `idmap` shows its owners as the node's own users."""

    source: Path
    read_only: bool
    idmap: bool

    def __init__(self, source: StrPath, read_only: bool = False, idmap: bool = False) -> None:
        _assign(self, source=Path(source).absolute(), read_only=read_only, idmap=idmap)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Node:
    """One node: what it runs, and what it is given. Text as a config is told apart by `config_kind`.

    `special_args` (JSON values) are arguments of the config's modules, `imports` included; kept as JSON text.
    """

    config: Config | tuple[Config, ...] | None
    image: str | None
    networks: tuple[NetworkName, ...] | None
    files: FrozenMap[str, tuple[bytes, int]]
    units: FrozenMap[str, str]
    binds: FrozenMap[str, Bind]
    credentials: FrozenMap[str, bytes]
    network_units: FrozenMap[str, str]
    memory: str | None
    cpus: float | None
    tasks: int | None
    store: Store
    private_users: bool | None
    root_size: str
    nspawn_options: tuple[str, ...]
    special_args: str
    fault: ConfigError | None = field(init=False, compare=False)

    def __init__(
        self,
        config: StrPath | Sequence[StrPath] | None = None,
        *,
        image: StrPath | None = None,
        networks: Sequence[NetworkName] | None = None,
        files: Mapping[str, FileContent] = FrozenMap[str, FileContent](),
        units: Mapping[str, str] = FrozenMap[str, str](),
        binds: Mapping[str, Bind | StrPath] = FrozenMap[str, Bind](),
        credentials: Mapping[str, str | bytes] = FrozenMap[str, bytes](),
        network_units: Mapping[str, str] = FrozenMap[str, str](),
        memory: str | None = None,
        cpus: float | None = None,
        tasks: int | None = None,
        store: Store = "host",
        private_users: bool | None = None,
        root_size: str = "1G",
        nspawn_options: Sequence[str] = (),
        special_args: Mapping[str, Any] | str = FrozenMap[str, Any](),
    ) -> None:
        fields: dict[str, tuple[Callable[[Any], object], object]] = {
            "config": (checks.config, config),
            "image": (checks.image, image),
            "networks": (checks.networks, networks),
            "files": (checks.files, files),
            "units": (checks.units, units),
            "binds": (_binds, binds),
            "credentials": (checks.credentials, credentials),
            "network_units": (checks.network_units, network_units),
            "memory": (checks.size("memory", optional=True), memory),
            "cpus": (checks.cpus, cpus),
            "tasks": (checks.tasks, tasks),
            "store": (checks.store, store),
            "private_users": (checks.private_users, private_users),
            "root_size": (checks.size("root_size"), root_size),
            "nspawn_options": (checks.nspawn_options, nspawn_options),
            "special_args": (checks.special_args, special_args),
        }
        _assign_checked(self, fields)

    def in_networks(self, networks: Iterable[NetworkName]) -> Node:
        """The same node in other networks."""
        node = copy.copy(self)
        _assign(node, networks=tuple(networks))
        return node

    def given(
        self,
        *,
        memory: str | None = None,
        root_size: str | None = None,
        credentials: Mapping[str, bytes] = FrozenMap[str, bytes](),
        binds: Mapping[str, Bind] = FrozenMap[str, Bind](),
    ) -> Node:
        """The same node with what else it is given; of a name that it has itself, its own stays."""
        node = copy.copy(self)
        _assign(
            node,
            memory=self.memory or memory,
            root_size=root_size or self.root_size,
            credentials=FrozenMap({**credentials, **self.credentials}),
            binds=FrozenMap({**binds, **self.binds}),
        )
        return node

    @property
    def configs(self) -> tuple[Config, ...]:
        """The config as a list, whatever form it was given in."""
        if self.config is None:
            return ()
        return self.config if isinstance(self.config, tuple) else (self.config,)

    @property
    def memory_bytes(self) -> int | None:
        """The limit of the node's memory in bytes."""
        return None if self.memory is None else parse_size(self.memory)

    @property
    def root_bytes(self) -> int:
        """The limit of what the node may write to its root, in bytes."""
        return parse_size(self.root_size)

    def __repr__(self) -> str:
        parts = [_short_config(each) for each in self.configs]
        for name in ("files", "units", "binds", "credentials", "network_units"):
            names = getattr(self, name)
            parts += [f"{name}=<{', '.join(map(str, names))}>"] if names else []
        for name in ("image", "networks", "memory", "cpus", "tasks", "private_users"):
            value = getattr(self, name)
            parts += [f"{name}={value!r}"] if value is not None else []
        parts += [f"store={self.store!r}"] if self.store != "host" else []
        parts += [f"root_size={self.root_size!r}"] if self.root_size != "1G" else []
        # An option's value may be a credential.
        options = [str(option).partition("=")[0] for option in self.nspawn_options]
        parts += [f"nspawn_options=<{', '.join(options)}>"] if options else []
        return f"Node({', '.join(parts)})"


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Network:
    """One network: its subnets (None: those of its VLAN number), whether the host side is on it, its MTU in bytes."""

    subnet4: ipaddress.IPv4Network | None
    subnet6: ipaddress.IPv6Network | None
    host: bool
    mtu: int | None
    fault: ConfigError | None = field(init=False, compare=False)

    def __init__(
        self,
        subnet4: str | ipaddress.IPv4Network | None = None,
        subnet6: str | ipaddress.IPv6Network | None = None,
        *,
        host: bool = True,
        mtu: int | None = None,
    ) -> None:
        fields: dict[str, tuple[Callable[[Any], object], object]] = {
            "subnet4": (checks.subnet4, subnet4),
            "subnet6": (checks.subnet6, subnet6),
            "host": (checks.host, host),
            "mtu": (checks.mtu, mtu),
        }
        _assign_checked(self, fields)

    def __repr__(self) -> str:
        parts = [
            f"{name}={str(value)!r}" for name in ("subnet4", "subnet6") if (value := getattr(self, name))
        ]
        parts += ["host=False"] if not self.host else []
        parts += [f"mtu={self.mtu}"] if self.mtu is not None else []
        return f"Network({', '.join(parts)})"


NodeLike: TypeAlias = Node | StrPath | Sequence[StrPath] | None
NetworkLike: TypeAlias = Network | str | ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Topology:
    """Nodes and networks by name; raises ConfigError for what is wrong with any of them. `name` is a variant's test ID."""

    nodes: FrozenMap[str, Node]
    networks: FrozenMap[NetworkName, Network]
    name: str | None

    def __init__(
        self,
        nodes: Mapping[str, NodeLike] = FrozenMap[str, Node](),
        # Any: a mapping is invariant in its keys, and {1: ...} and {"front": ...} are both good.
        networks: Mapping[Any, NetworkLike] = FrozenMap[NetworkName, Network](),
        name: str | None = None,
    ) -> None:
        checks.names_of_nodes(checks.mapping("nodes", nodes))
        values = {key: as_node(value) for key, value in nodes.items()}
        for key, node in values.items():
            if node.fault is not None:
                raise replace(node.fault, node=key) from None
        declared: dict[NetworkName, Network] = {}
        for given, wanted in checks.mapping("networks", networks).items():
            name_or_number = checks.network_name(given)
            if name_or_number in declared:
                raise ConfigError(problem="a network is declared twice", value=given, hint="declare it once")
            declared[name_or_number] = network = as_network(wanted)
            if network.fault is not None:
                fault = network.fault
                raise replace(fault, problem=f"network {name_or_number!r}: {fault.problem}") from None
        _assign(self, nodes=FrozenMap(values), networks=FrozenMap(declared), name=checks.variant_name(name))

    def networks_of(self, node: str) -> tuple[NetworkName, ...]:
        """The networks of a node, in the order of its interfaces."""
        networks = self.nodes[node].networks
        return (1,) if networks is None else networks

    @property
    def all_networks(self) -> FrozenMap[NetworkName, Network]:
        """The declared networks and those that nodes merely name."""
        named = {network: Network() for node in self.nodes for network in self.networks_of(node)}
        return FrozenMap(named | dict(self.networks))

    def __repr__(self) -> str:
        name = [repr(self.name)] if self.name is not None else []
        parts = [f"{kind}={getattr(self, kind)!r}" for kind in ("nodes", "networks") if getattr(self, kind)]
        return f"Topology({', '.join(name + parts)})"


def as_node(value: NodeLike) -> Node:
    """A node from what the mark takes for one: a `Node` or its config."""
    return value if isinstance(value, Node) else Node(value)


def as_network(value: NetworkLike) -> Network:
    """A network from what the mark takes for one: a `Network` or a subnet."""
    if isinstance(value, Network):
        return value
    if isinstance(value, ipaddress.IPv6Network) or (isinstance(value, str) and ":" in value):
        return Network(subnet6=value)
    return Network(subnet4=value)


def config_kind(config: Config) -> ConfigKind:
    """What a config is: a built system, a Nix expression, a flake reference, a path, or a node's name in the manifest.

    A flake reference has a `#`, or begins with a scheme as `github:` does (nix3-flake(1)).
    """
    if isinstance(config, Path):
        return "path"
    if config.startswith("/nix/store/") and not config.endswith(".nix") and "#" not in config:
        return "system"
    if "{" in config:
        return "expression"
    if "#" in config or re.match(r"[a-z][a-z0-9+.-]+:", config):
        return "flake"
    return "path" if config.endswith(".nix") or "/" in config else "name"


def _short_config(config: object) -> str:
    """A config for a repr: an expression may hold secrets, and is long."""
    if isinstance(config, str) and config_kind(config) == "expression":
        return "<Nix expression>"
    return repr(str(config))


def _binds(given: object) -> FrozenMap[str, Bind]:
    binds: dict[str, Bind] = {}
    for path, value in checks.by_path("binds", given).items():
        if not isinstance(value, Bind | str | os.PathLike) or value == "":
            problem = f"binds: the source for {path} is neither a path nor a Bind"
            raise ConfigError(problem=problem, value=value, hint='say "/path/of/the/machine" or Bind(...)')
        binds[path] = value if isinstance(value, Bind) else Bind(value)
    return FrozenMap(binds)


def _assign(target: object, **values: object) -> None:
    """Set the fields of a frozen value while it is made."""
    for name, value in values.items():
        object.__setattr__(target, name, value)


def _assign_checked(target: object, fields: Mapping[str, tuple[Callable[[Any], object], object]]) -> None:
    """Set each field to its checked form; the first fault is kept, beside the value as given."""
    fault: ConfigError | None = None
    for name, (check, given) in fields.items():
        value = given
        try:
            value = check(given)
        except ConfigError as error:
            fault = fault or error.with_traceback(None)
        _assign(target, **{name: value})
    _assign(target, fault=fault)
