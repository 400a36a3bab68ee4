"""What is known of a built NixOS system, as data: an entry of a manifest, or of what an evaluation gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.model import NetworkName

Store: TypeAlias = Literal["host", "closure", "writable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """An interface of a node; it has addresses where NixOS gives it some."""

    name: str
    network: NetworkName
    address4: str | None = None
    address6: str | None = None
    prefix4: int = 24
    prefix6: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A built system; `memory` and `disk` are in MiB, `closure` is a directory with the names of its store paths.

    `credentials` are texts, or (`source`) files of the machine; `shared` are directories of it by their place in the node.
    """

    system: str
    host_name: str | None = None
    domain: str | None = None
    interfaces: tuple[Interface, ...] | None = None
    firewall: Mapping[str, Any] | None = None
    closure: str | None = None
    memory: int | None = None
    disk: int | None = None
    credentials: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    store: Store = "host"
    vm_only: tuple[str, ...] = ()


def facts_of(name: str, entry: Any) -> Facts:
    """Facts from an entry of a manifest: a store path, or what `nixos/evaluate.nix` gives. Raises ConfigError."""
    if isinstance(entry, str):
        return Facts(system=entry)
    try:
        interfaces = entry.get("interfaces")
        return Facts(
            system=entry["system"],
            host_name=entry.get("hostName"),
            domain=entry.get("domain"),
            interfaces=None if interfaces is None else tuple(map(_interface, interfaces)),
            firewall=entry.get("firewall"),
            closure=entry.get("closure"),
            memory=entry.get("memorySize"),
            disk=entry.get("diskSize"),
            credentials=entry.get("credentials", {}),
            shared=entry.get("sharedDirectories", {}),
            store=entry.get("store", "host"),
            vm_only=tuple(entry.get("vmOnly", ())),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            problem="malformed entry of a manifest",
            node=name,
            value=entry,
            hint='give a store path, or an object with at least "system"',
        ) from error


def _interface(entry: Mapping[str, Any]) -> Interface:
    addresses = ("address4", "address6", "prefix4", "prefix6")
    given = {key: entry[key] for key in addresses if key in entry}
    return Interface(name=entry["name"], network=entry["network"], **given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Prebuilt systems by name, from a file: no Nix is run."""

    path: Path
    entries: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read one. Raises ConfigError."""
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                problem=f"cannot read the manifest ({error})",
                value=str(path),
                hint="give a JSON file: an object of node names and store paths",
            ) from error
        if not isinstance(entries, dict):
            raise ConfigError(problem="the manifest is no JSON object", value=str(path))
        return cls(path=path, entries=entries)

    def entry(self, *names: str) -> Any:
        """The first of some names that it has. Raises ConfigError where it has none."""
        for name in names:
            if name in self.entries:
                return self.entries[name]
        known = ", ".join(self.entries) or "nothing"
        raise ConfigError(
            problem="the manifest has no such entry", value=names[0], hint=f"{self.path} has {known}"
        )
