"""A topology, booted: all its nodes side by side in one sandbox, owned until it is closed."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pytest_nspawn import cgroups, host, naming, networkd
from pytest_nspawn.capture import LiveNetwork
from pytest_nspawn.container import Container
from pytest_nspawn.diagnostics import diagnose
from pytest_nspawn.errors import BootError, ConfigError, HostError, NspawnError
from pytest_nspawn.frozen import FrozenMap
from pytest_nspawn.images import Image, ImageFactory, Images
from pytest_nspawn.launch import Surroundings, limits_of, plan_launch
from pytest_nspawn.machine import Machine, MachineOptions
from pytest_nspawn.model import Bind, CommandResult, Config, NetworkName, Node, NodeLike, Topology, as_node
from pytest_nspawn.nixbuild import (
    Builder,
    Facts,
    Manifest,
    NixTest,
    Outline,
    interfaces_of,
    outline_of,
    test_of,
    with_facts,
)
from pytest_nspawn.sandbox import Sandbox

if TYPE_CHECKING:
    from typing import Literal

BOOT_TIMEOUT = 120.0
"""Seconds for a node to become ready."""

_REMOVAL = 30.0
_OPTIONS = {"memory": "memory", "pids": "tasks", "cpu": "cpus"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How nodes are booted; paths of configs and images are looked up in `directories`, in that order."""

    image: str = "host"
    nixpkgs: str | None = None
    manifest: Path | None = None
    sandbox: str = "auto"
    private_users: str = "auto"
    boot_timeout: float = BOOT_TIMEOUT
    full_boot: bool = False
    directories: Sequence[Path] = ()
    kinds: Mapping[str, ImageFactory] = field(default_factory=dict)
    node_args: Callable[[Node, list[str], str], None] | None = None
    on_boot: Callable[[Literal["started", "ready", "failed", "stopped"], Machine], None] | None = None
    on_command: Callable[[Machine, CommandResult], None] | None = None
    on_build: Callable[[str | None], None] = lambda _status: None
    """Hears what Nix does, and None when it is done."""
    state_dir: Path | None = None
    """Where machines have their directories; None: one that goes with the cluster."""


class Engine:
    """Boots topologies in one sandbox, which is started for the first and serves them all."""

    def __init__(self, options: EngineOptions | None = None) -> None:
        self.options = options or EngineOptions()
        self._sandbox: Sandbox | None = None
        self._open: list[Cluster] = []
        self._systems: dict[str, Facts] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox, started at first use. Raises HostError, SandboxError."""
        if self._sandbox is None:
            self._sandbox = Sandbox(host.resolve_mode(self.options.sandbox))
        return self._sandbox

    def check(self, topology: Topology, *, directories: Sequence[Path] = ()) -> None:
        """Raise the ConfigError or HostError that can be known before anything boots.

        Relative paths are looked up in `directories`, then in those of the options.
        """
        self._checked(topology, directories)

    def _checked(
        self, topology: Topology, directories: Sequence[Path]
    ) -> tuple[Images, dict[str, Facts], dict[str, tuple[Config, ...]]]:
        """Check a topology; gives its images, what is known of its systems, and what Nix has to build."""
        images = self.images(directories)
        naming.plan_wiring(topology)
        facts = {
            name: known for name, node in topology.nodes.items() if (known := self._known(images, name, node))
        }
        configs = {
            name: wanted
            for name, node in topology.nodes.items()
            if name not in facts and (wanted := images.configs(name, node)) is not None
        }
        if configs:
            self._builder.nixpkgs([*directories, *self.options.directories])
        mode = host.resolve_mode(self.options.sandbox)
        limits = usable_controllers(mode)
        for name, node in topology.nodes.items():
            image = None if name in configs else images.of(name, node, facts.get(name))
            for path, bind in node.binds.items():
                if not os.path.exists(bind.source):  # pathlib's raises where the path is too long
                    problem = f"binds: there is nothing to bind to {path}"
                    hint = "give a file or directory of this machine"
                    raise ConfigError(problem=problem, node=name, value=str(bind.source), hint=hint)
            if (
                mode == "user"
                and image is not None
                and image.tree is not None
                and image.tree.stat().st_uid != os.getuid()
            ):
                raise ConfigError(
                    problem="this root file system belongs to another user, so a node of yours could not write to it",
                    node=name,
                    value=str(image.tree),
                    hint="give it as a tar archive (rootfs:FILE.tar), or run as root",
                )
            if self.options.private_users == "no" and node.private_users:
                problem = "private_users=True, but --nspawn-private-users=no"
                raise ConfigError(problem=problem, node=name)
            if mode == "user" and node.private_users:
                raise HostError(
                    problem=f"node {name!r}: private_users=True needs root: the kernel maps no images for a user",
                    mend="pytest --nspawn-sandbox=root",
                )
            for controller in limits_of(node):
                if controller not in limits:
                    raise HostError(
                        problem=f"node {name!r}: {_OPTIONS[controller]} needs the {controller} controller, "
                        f"which the sandbox ({mode}) cannot use on this machine",
                        mend="python -m pytest_nspawn doctor",
                    )
        return images, facts, configs

    def boot(
        self,
        topology: Topology,
        *,
        directories: Sequence[Path] = (),
        start: bool = True,
        slow_job: float | None = None,
    ) -> Cluster:
        """Begin to boot all nodes and return at once; with `start=False`, begin nothing.

        With `slow_job`, a node is ready though a start job of its systemd takes longer than these seconds. Raises
        ConfigError, HostError, SandboxError.
        """
        images, facts, configs = self._checked(topology, directories)
        if configs:
            where = [*directories, *self.options.directories]
            facts |= self._builder.build(with_facts(topology, facts), configs, where)
        cluster = Cluster(self, topology, images, facts, slow_job=slow_job)
        self._open.append(cluster)
        if start:
            cluster.start_all()
        return cluster

    def nix_outline(self, reference: Config, *, directories: Sequence[Path] = ()) -> Outline:
        """What can be known of an existing NixOS test before anything is built, from the manifest or evaluated.

        `reference` is an absolute path, or a flake reference with an attribute. Raises NixError, ConfigError, HostError.
        """
        if self._manifest is not None:
            return outline_of(_entry(self._manifest, reference), reference)
        return self._builder.outline(reference, [*directories, *self.options.directories])

    def nix_test(
        self,
        reference: Config,
        *,
        directories: Sequence[Path] = (),
        check: Callable[[Outline], None] = lambda _outline: None,
        interactive: bool = False,
    ) -> NixTest:
        """An existing NixOS test, from the manifest or evaluated and built; `boot` knows its systems from then on.

        `check` is shown the test before anything is built; what it raises ends this. With `interactive`, the nodes are
        those of the test's interactive use. Raises NixError, ConfigError, HostError.
        """
        if self._manifest is not None:
            test = test_of(_entry(self._manifest, reference), reference)
            check(test)
        else:
            test = self._builder.test(
                reference, [*directories, *self.options.directories], check, interactive=interactive
            )
        self._systems |= {known.system: known for known in test.facts.values()}
        return test

    def _known(self, images: Images, name: str, node: Node) -> Facts | None:
        """What is known of a node's system without Nix."""
        found = images.prebuilt(name, node)
        if found is None and len(node.configs) == 1:
            found = self._systems.get(str(node.configs[0]))
        return found

    def close(self) -> None:
        """Stop what still runs, and the sandbox. Idempotent."""
        with contextlib.ExitStack() as stack:
            if self._sandbox is not None:
                stack.callback(self._sandbox.stop)
                self._sandbox = None
            for cluster in self._open[:]:
                stack.callback(cluster.close)

    def closed(self, cluster: Cluster) -> None:
        """Forget a cluster."""
        # By identity: one that could not be made compares with nothing.
        self._open = [each for each in self._open if each is not cluster]

    def images(self, directories: Sequence[Path]) -> Images:
        """Where images are looked up."""
        options = self.options
        return Images(
            default=options.image,
            directories=[*directories, *options.directories],
            kinds=options.kinds,
            manifest=self._manifest,
        )

    @functools.cached_property
    def _manifest(self) -> Manifest | None:
        return Manifest.read(self.options.manifest) if self.options.manifest is not None else None

    @property
    def _builder(self) -> Builder:
        return Builder(option=self.options.nixpkgs, on_status=self.options.on_build)

    def owner_for(self, name: str, node: Node, image: Image) -> int:
        """The first id of a node's user namespace, or 0 for none."""
        asked = node.private_users
        if asked is None and self.options.private_users != "auto":
            asked = self.options.private_users == "yes"
        if asked is False or (asked is None and self.sandbox.mode == "user"):
            return 0
        refused = [path for path in image.shifted if not self._can_shift(path)]
        if not refused:
            return self.sandbox.shift()
        if asked is None:
            return 0
        raise HostError(
            problem=f"node {name!r}: the kernel cannot map the file system of {refused[0]} for private users",
            mend="pytest --nspawn-private-users=no",
        )

    def configured(self, name: str, node: Node, facts: Facts | None) -> Node:
        """The node with what its NixOS configuration says of its machine, where the node itself says nothing.

        Raises ConfigError where that is not there.
        """
        if facts is None:
            return node
        root_size = (
            f"{facts.disk}M" if facts.disk is not None and facts.disk > node.root_bytes >> 20 else None
        )
        node = node.given(root_size=root_size, **_of_machine(name, facts))
        if facts.memory is None or "memory" not in usable_controllers(self.sandbox.mode):
            return node
        # A virtual machine has its disk besides; here the root is in memory too.
        return node.given(memory=f"{facts.memory + (node.root_bytes >> 20)}M")

    def _can_shift(self, path: str) -> bool:
        return self.sandbox.can_shift(path)


def _of_machine(name: str, facts: Facts) -> dict[str, Any]:
    """The files and directories of this machine that a configuration asks for."""
    credentials: dict[str, bytes] = {}
    for key, each in facts.credentials.items():
        source = each.get("source")
        try:
            credentials[key] = Path(source).read_bytes() if source else (each.get("text") or "").encode()
        except OSError as error:
            problem = f"virtualisation.credentials: cannot read {key} ({error.strerror})"
            raise ConfigError(problem=problem, node=name, value=source) from error
    binds = {path: Bind(os.path.expandvars(source), idmap=True) for path, source in facts.shared.items()}
    for path, bind in binds.items():
        if not bind.source.is_dir():
            problem = f"virtualisation.sharedDirectories: there is nothing to show at {path}"
            raise ConfigError(problem=problem, node=name, value=str(bind.source))
    return {"credentials": credentials, "binds": binds}


def _entry(manifest: Manifest, reference: Config) -> Any:
    """A test's entry, by its reference or its last word."""
    name = Path(reference).name if isinstance(reference, Path) else reference.rpartition("#")[2]
    return manifest.entry(str(reference), name)


class Cluster(Mapping[str, Machine]):
    """The nodes of a topology by name; closing it leaves nothing of them."""

    def __init__(
        self,
        engine: Engine,
        topology: Topology,
        images: Images,
        facts: Mapping[str, Facts],
        *,
        slow_job: float | None = None,
    ) -> None:
        self.topology = with_facts(topology, facts)
        self.facts = facts
        self._images = images
        self._engine = engine
        self._slow_job = slow_job
        self._stack = contextlib.ExitStack()
        with self._stack:
            self._stack.callback(engine.closed, self)
            self._machines = self._build()
            self._stack = self._stack.pop_all()

    def _build(self) -> dict[str, Machine]:
        engine, topology, facts = self._engine, self.topology, self.facts
        sandbox, options = engine.sandbox, engine.options
        wiring = naming.plan_wiring(
            topology,
            interfaces_of(facts),
            host_names={name: known.host_name for name, known in facts.items() if known.host_name},
            domains={name: known.domain for name, known in facts.items() if known.domain},
        )
        bridges = {bridge.network: bridge for bridge in wiring.bridges}
        number = sandbox.number()
        self._networks = sandbox.request(
            "cluster",
            cluster=number,
            bridges=[
                {
                    "ifname": bridge.ifname,
                    "mtu": bridge.mtu,
                    "mac": f"02:00:00:00:{bridge.vlan:02x}:fe",
                    "addresses": [
                        str(each) for each in (bridge.address4, bridge.address6) if each is not None
                    ],
                }
                for bridge in wiring.bridges
            ],
        )
        self._stack.callback(self._end_networks, sandbox, number)
        state = options.state_dir or Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pytest-nspawn-"))
        )
        all_networks = topology.all_networks
        self._live = FrozenMap(
            {
                network: LiveNetwork(all_networks[network], bridge, sandbox, number, state)
                for network, bridge in bridges.items()
            }
        )
        shared = state / "shared-xchg"
        shared.mkdir(exist_ok=True)
        shared.chmod(0o1777)  # each node has users of its own
        self._containers: dict[str, Container] = {}
        self._stack.callback(self._remove)
        machines: dict[str, Machine] = {}

        def changed(container: Container, event: Any) -> None:
            if options.on_boot is not None and container.name in machines:
                options.on_boot(event, machines[container.name])

        for name, given in topology.nodes.items():
            image = self._images.of(name, given, facts.get(name))
            node = engine.configured(name, given, facts.get(name))
            container = Container(
                sandbox,
                node,
                name,
                boot_timeout=options.boot_timeout,
                slow_job=self._slow_job,
                changed=changed,
            )
            surroundings = Surroundings(
                host_name=wiring.host_names[name],
                links=wiring.links[name],
                bridges={network: bridge.ifname for network, bridge in bridges.items()},
                mtus={network: bridge.mtu for network, bridge in bridges.items()},
                hosts=networkd.hosts_file(wiring, name),
                network_files=networkd.network_files(wiring, name),
                shared=str(shared.resolve()),
                confined=sandbox.confined,
            )
            container.prepare(
                number,
                plan_launch(
                    name,
                    node,
                    image,
                    surroundings,
                    home=container.home,
                    owner=engine.owner_for(name, node, image),
                    full_boot=options.full_boot,
                    adjust=options.node_args,
                ),
            )
            self._containers[name] = container
            machines[name] = Machine(
                container,
                options=MachineOptions(
                    tmp_dir=state,
                    out_dir=state,
                    on_command=options.on_command,
                    interfaces=[(link.network, link.ifname) for link in wiring.links[name]],
                ),
            )
        return machines

    @property
    def machines(self) -> list[Machine]:
        """All nodes, in the order of their names."""
        return list(self._machines.values())

    @property
    def networks(self) -> Mapping[NetworkName, LiveNetwork]:
        """All networks by name or VLAN number."""
        return self._live

    def __getitem__(self, name: str) -> Machine:
        return self._machines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._machines)

    def __len__(self) -> int:
        return len(self._machines)

    def __repr__(self) -> str:
        return f"<Cluster {', '.join(self)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_all(self) -> None:
        """Begin to boot every node that does not run; does not wait."""
        for container in self._containers.values():
            container.start()

    def join_all(self) -> None:
        """Wait until every node has shut down."""
        for container in self._containers.values():
            if container.started_at is not None:
                container.wait_stopped()

    def boot_failures(self) -> list[BootError]:
        """Boot failures that no command has raised; waits for boots that no command has waited for."""
        for container in self._containers.values():
            container.wait_outcome()
        found = [error for each in self._containers.values() if (error := each.failure()) is not None]
        if self._networks.done() and isinstance(problem := self._networks.exception(), NspawnError):
            found += [BootError(node=name, problem=str(problem)) for name in list(self)[:1]]
        return found

    def diagnostics(self, name: str) -> Mapping[str, str]:
        """What a failed test's report tells of a node: section title to text."""
        return diagnose(self._containers[name], self._machines[name].history)

    def status(self, name: str) -> str:
        """What systemd-nspawn last said of a node's boot; empty where it said nothing yet."""
        return self._containers[name].status

    def has_state(self, name: str) -> bool:
        """Whether there is anything of a node to keep: one that never started has nothing."""
        return self._containers[name].has_state

    def keep(self, name: str, directory: Path) -> None:
        """Copy a node's root, journal and console log, running or not. Raises SandboxError, OSError."""
        self._containers[name].keep(directory)

    def close(self) -> None:
        """Kill every node and remove its networks, files and control groups. Idempotent."""
        self._stack.close()

    def _remove(self) -> None:
        futures = [each.remove() for each in self._containers.values() if each.started_at is not None]
        wait(futures, timeout=_REMOVAL)
        with contextlib.ExitStack() as stack:
            for machine in getattr(self, "_machines", {}).values():
                stack.callback(machine.release)
            for container in self._containers.values():
                stack.callback(container.release)

    def _end_networks(self, sandbox: Sandbox, number: int) -> None:
        sandbox.request("end_cluster", cluster=number)


def usable_controllers(mode: host.Mode) -> set[str]:
    """The controllers that a sandbox of this mode can limit a node by."""
    home = cgroups.cgroup_home()
    return {*home.controllers, *(home.v1 if mode == "root" else {})}


@contextlib.contextmanager
def boot(
    topology: Topology | None = None, /, *, options: EngineOptions | None = None, **nodes: NodeLike
) -> Iterator[Cluster]:
    """Boot nodes without pytest; paths are looked up from the working directory.

    Raises ConfigError and HostError before anything boots; a boot's failure is raised by the first command to its node.
    """
    base = topology or Topology()
    whole = Topology(
        {**base.nodes, **{name: as_node(node) for name, node in nodes.items()}}, base.networks, base.name
    )
    with Engine(options) as engine, engine.boot(whole) as cluster:
        yield cluster
