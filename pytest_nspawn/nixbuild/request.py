"""What Nix is asked for, as a JSON file: all nodes of a topology, their configs, numbers and addresses."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.model import Config, NetworkName, Node, config_kind
from pytest_nspawn.naming import Link, Wiring
from pytest_nspawn.nixbuild.nixpkgs import Nixpkgs
from pytest_nspawn.nixbuild.test import data_of

_PYTHON = f"{sys.version_info.major}{sys.version_info.minor}"
"""This Python, as nixpkgs names its packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequest:
    """One node: its configs are absolute paths, Nix text, or flake references."""

    number: int
    configs: tuple[Config, ...]
    networks: tuple[NetworkName, ...] | None
    addresses: Mapping[str, Mapping[str, str | int]]
    store: str | None
    special_args: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that an evaluation is told; equal requests have equal texts."""

    nixpkgs: Nixpkgs
    nodes: Mapping[str, NodeRequest] = field(default_factory=dict)
    peers: Mapping[str, Any] = field(default_factory=dict)
    test: Config | None = None
    """An existing NixOS test: an absolute path (`#` and a name where it has several), or a flake reference with one."""
    interactive: bool = False
    """Whether what the test says of its interactive use (`interactive`) holds."""

    def write(self, home: Path) -> Path:
        """Write it and the Nix texts of its nodes into a directory; gives the request's file."""
        nodes = {}
        for name, node in self.nodes.items():
            configs = [
                _config_data(config, home, f"{name}-{index}") for index, config in enumerate(node.configs)
            ]
            nodes[name] = {
                "number": node.number,
                "configs": configs,
                "networks": None if node.networks is None else list(node.networks),
                "addresses": {key: dict(value) for key, value in node.addresses.items()},
                "store": node.store,
                "specialArgs": json.loads(node.special_args),
            }
        data = {
            "system": system(),
            "nixpkgs": self.nixpkgs.data(),
            "nodes": nodes,
            "peers": self.peers,
            "test": None if self.test is None else data_of(self.test),
            "interactive": self.interactive,
            "python": _PYTHON,
        }
        path = home / "request.json"
        _write(path, json.dumps(data, sort_keys=True, indent=1))
        return path

    def key(self, environment: Mapping[str, str]) -> str:
        """What tells it from every other request, the variables that an evaluation sees included."""
        nodes = {
            name: [
                node.number,
                [str(each) for each in node.configs],
                node.networks,
                node.addresses,
                node.store,
                node.special_args,
            ]
            for name, node in self.nodes.items()
        }
        data = [
            self.nixpkgs.data(),
            nodes,
            self.peers,
            str(self.test),
            self.interactive,
            _PYTHON,
            dict(environment),
            system(),
        ]
        return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:40]


def system() -> str:
    """This machine as Nix calls it."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
    return f"{machine}-linux"


def node_request(
    name: str, node: Node, configs: Sequence[Config], wiring: Wiring, networks: Sequence[NetworkName] | None
) -> NodeRequest:
    """What Nix has to know of a node; `networks` as the user said, None where its config says."""
    return NodeRequest(
        number=wiring.numbers[name],
        configs=tuple(configs),
        networks=None if networks is None else tuple(networks),
        addresses={
            str(link.network): _addresses(link) for link in wiring.links[name] if link.address4 is not None
        },
        store=None if node.store == "host" else node.store,
        special_args=node.special_args,
    )


def peer(name: str, wiring: Wiring) -> dict[str, Any]:
    """What Nix has to know of a node that is no NixOS configuration."""
    interfaces = [
        {"name": link.ifname, "network": link.network, **_addresses(link)}
        for link in wiring.links[name]
        if link.address4
    ]
    return {"hostName": wiring.host_names[name], "domain": None, "interfaces": interfaces}


def _addresses(link: Link) -> dict[str, str | int]:
    if link.address4 is None or link.address6 is None:
        return {}
    return {
        "address4": str(link.address4.ip),
        "prefix4": link.address4.network.prefixlen,
        "address6": str(link.address6.ip),
        "prefix6": link.address6.network.prefixlen,
    }


def _config_data(config: Config, home: Path, name: str) -> dict[str, Any]:
    kind = config_kind(config)
    if kind == "path":
        return {"path": str(config)}
    if kind == "flake":
        ref, _, attribute = str(config).partition("#")
        return {"flake": {"ref": ref, "attribute": attribute}}
    if kind == "expression":
        # A file of its own: Nix reads it, and names it in errors.
        path = home / f"{name}.nix"
        _write(path, str(config))
        return {"path": str(path)}
    raise ConfigError(problem="this cannot be one of several configs", value=str(config))


def _write(path: Path, text: str) -> None:
    """Write a file unless it says that already: its times are part of what an evaluation read."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except FileNotFoundError:
        pass
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
