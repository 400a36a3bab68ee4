"""Which nixpkgs: what the option says, the tree itself, the flake's locked input, NIX_PATH, the registry, in that order."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pytest_nspawn.errors import ConfigError

_EVALUATOR = "nixos/lib/eval-config.nix"
_REFERENCE = re.compile(r"[a-z][a-z0-9+.-]*:\S+")
_CHANNELS = (
    "/nix/var/nix/profiles/per-user/root/channels/nixpkgs",
    "/nix/var/nix/profiles/per-user/root/channels",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nixpkgs:
    """A tree (`path`) or a flake reference."""

    path: str | None = None
    flake: str | None = None

    def data(self) -> dict[str, str]:
        """As a request names it."""
        return {"path": self.path} if self.path is not None else {"flake": self.flake or ""}


def find(option: str | None, directories: Sequence[Path], environment: Mapping[str, str]) -> Nixpkgs:
    """The nixpkgs to build with; the option's paths are absolute. Raises ConfigError with what was tried."""
    tried: list[str] = []
    if option is not None:
        return _from_option(option)
    for directory in _upwards(directories):
        if (directory / _EVALUATOR).is_file():
            return Nixpkgs(path=os.path.realpath(directory))
        if (directory / "flake.lock").is_file():
            found = _from_lock(directory / "flake.lock")
            if found is not None:
                return found
            tried.append(f"{directory / 'flake.lock'} (it has no input nixpkgs)")
        elif (directory / "flake.nix").is_file():
            tried.append(f"{directory / 'flake.nix'} (it has no flake.lock: nix flake lock makes one)")
    found = _from_nix_path(environment, tried) or _from_registry(environment, tried)
    if found is None:
        raise ConfigError(
            problem="no nixpkgs to build NixOS configurations with",
            hint=f"give one with --nspawn-nixpkgs; tried: {'; '.join(tried)}",
        )
    return found


def _from_option(option: str) -> Nixpkgs:
    if os.path.isabs(option):
        if not os.path.exists(os.path.join(option, _EVALUATOR)):
            raise ConfigError(
                problem="--nspawn-nixpkgs: this directory is no nixpkgs",
                value=option,
                hint=f"it has no {_EVALUATOR}",
            )
        return Nixpkgs(path=os.path.realpath(option))
    if _REFERENCE.fullmatch(option) or "/" not in option:
        return Nixpkgs(flake=option)
    raise ConfigError(
        problem="--nspawn-nixpkgs: neither a directory nor a flake reference",
        value=option,
        hint="say github:NixOS/nixpkgs/...",
    )


def _upwards(directories: Sequence[Path]) -> Iterator[Path]:
    """Each directory and those above it, up to where a repository begins."""
    seen = set()
    for start in directories:
        for directory in (start, *start.parents):
            if directory in seen:
                break
            seen.add(directory)
            yield directory
            if (directory / ".git").exists():
                break


def _from_lock(lock: Path) -> Nixpkgs | None:
    """The locked input `nixpkgs` of a flake, as a reference that names its content."""
    try:
        data = json.loads(lock.read_text(encoding="utf-8"))
        nodes = data["nodes"]
        name = nodes[data["root"]].get("inputs", {}).get("nixpkgs")
        while isinstance(name, list):  # it follows another's input
            name = _follow(data, name)
        return None if name is None else Nixpkgs(flake=_reference(nodes[name]["locked"], lock.parent))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(problem=f"cannot read this lock file ({error!r})", value=str(lock)) from error


def _follow(data: Mapping[str, Any], path: Sequence[str]) -> Any:
    name: Any = data["root"]
    for step in path:
        while isinstance(name, list):
            name = _follow(data, name)
        name = data["nodes"][name]["inputs"][step]
    return name


def _reference(locked: Mapping[str, Any], home: Path) -> str:
    """A locked input as a URL (flake references, "URL-like syntax")."""
    kind = locked["type"]
    query = {key: str(locked[key]) for key in ("narHash", "dir", "ref", "submodules") if key in locked}
    if kind in ("github", "gitlab", "sourcehut"):
        query.pop("ref", None)  # the revision says it
        url = f"{kind}:{locked['owner']}/{locked['repo']}/{locked['rev']}"
    elif kind == "path":
        url = f"path:{quote(os.path.join(home, locked['path']))}"
    elif kind == "git":
        url = f"git+{locked['url']}"
        query["rev"] = locked["rev"]
    elif kind in ("tarball", "file"):
        url = f"{kind}+{locked['url']}"
    else:
        raise KeyError(kind)
    return f"{url}?{urlencode(query)}" if query else url


def _from_nix_path(environment: Mapping[str, str], tried: list[str]) -> Nixpkgs | None:
    text = environment.get("NIX_PATH")
    if text is None:
        home = environment.get("HOME", "/root")
        entries = [f"{home}/.nix-defexpr/channels", *_CHANNELS]
    else:
        # A colon of a URL or of a flake reference is none between entries.
        entries = [entry for entry in re.split(r":(?!//)(?<!flake:)(?<!channel:)(?<!https:)", text) if entry]
    for entry in entries:
        name, equals, value = entry.partition("=")
        target = value if equals else os.path.join(entry, "nixpkgs") if os.path.isdir(entry) else entry
        if equals and name != "nixpkgs":
            continue
        if target.startswith("flake:"):
            return Nixpkgs(flake=target.removeprefix("flake:"))
        if target.startswith(("http://", "https://", "channel:")):
            tried.append(f"NIX_PATH: {target} (an archive without a hash: name a directory or a flake)")
        elif os.path.exists(os.path.join(target, _EVALUATOR)):
            return Nixpkgs(path=os.path.realpath(target))
        elif os.path.exists(os.path.join(entry, _EVALUATOR)):
            return Nixpkgs(path=os.path.realpath(entry))
        else:
            tried.append(f"NIX_PATH: {target}" if text is not None else target)
    if text is not None and not entries:
        tried.append("NIX_PATH (it is empty)")
    return None


def _from_registry(environment: Mapping[str, str], tried: list[str]) -> Nixpkgs | None:
    config = environment.get("XDG_CONFIG_HOME") or os.path.join(environment.get("HOME", "/root"), ".config")
    for path in (Path(config, "nix/registry.json"), Path("/etc/nix/registry.json")):
        try:
            flakes = json.loads(path.read_text(encoding="utf-8"))["flakes"]
        except (OSError, ValueError, KeyError):
            tried.append(f"{path} (no registry)")
            continue
        if any(each.get("from", {}).get("id") == "nixpkgs" for each in flakes):
            return Nixpkgs(flake="nixpkgs")
        tried.append(f"{path} (nixpkgs is not in it)")
    return None
