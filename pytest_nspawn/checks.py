"""The checks that turn what a user wrote into the frozen fields of `model.py`, or raise ConfigError.

None of them knows which node it is about: the `Topology` adds that. No message ever holds the contents of a file, a unit
or a credential.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.frozen import FrozenMap
from pytest_nspawn.naming import host_name, identifier

Subnet = TypeVar("Subnet", ipaddress.IPv4Network, ipaddress.IPv6Network)

RESERVED = ("request", "nodes", "nspawn")
"""Fixtures of pytest and of the plugin, which no node may be called after."""

_UNITS = ("service", "socket", "target", "timer", "path", "mount", "automount", "swap", "slice")
_NETWORK_UNITS = ("network", "netdev", "link")
_UNITS_OF_SIZE = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NAME_MAX, _PATH_MAX = 255, 4095


def parse_size(text: object) -> int:
    """Bytes of a size like "512M"; K, M, G and T are powers of 1024. Raises ConfigError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT])", text) if isinstance(text, str) else None
    size = int(Decimal(match[1]) * _UNITS_OF_SIZE[match[2]]) if match else 0
    if size <= 0:
        hint = 'say a number above zero with one of the units K, M, G, T, for example "512M"'
        raise ConfigError(problem="malformed size", value=text, hint=hint)
    return size


def size(what: str, *, optional: bool = False) -> Callable[[Any], str | None]:
    """A check that keeps a size as its text."""

    def check(given: Any) -> str | None:
        if given is None and optional:
            return None
        try:
            parse_size(given)
        except ConfigError as error:
            raise ConfigError(problem=f"{what}: {error.problem}", value=given, hint=error.hint) from None
        return str(given)

    return check


def mapping(what: str, given: Any) -> Mapping[Any, Any]:
    """A mapping, told from what a user may have meant by something else."""
    if not isinstance(given, Mapping):
        raise ConfigError(
            problem=f"{what} is no mapping", value=type(given).__name__, hint="give a dictionary"
        )
    return given


def by_path(what: str, given: Any) -> dict[str, Any]:
    """A mapping by path in the node: absolute, normalised, each once, none below another where that is a file."""
    checked: dict[str, Any] = {}
    for key, value in mapping(what, given).items():
        path = _node_path(what, key)
        if path in checked:
            raise ConfigError(problem=f"{what}: the same path twice", value=path, hint="give it once")
        checked[path] = value
    return checked


def _node_path(what: str, key: object) -> str:
    path = os.fspath(key) if isinstance(key, str | os.PathLike) else ""
    parts = path.split("/") if isinstance(path, str) else []
    if (
        not parts
        or parts[0]
        or "\0" in path
        or ".." in parts
        or not any(part not in ("", ".") for part in parts)
    ):
        hint = "give an absolute path without '..', like /etc/motd"
        raise ConfigError(problem=f"{what}: no path in a node", value=key, hint=hint)
    if len(path.encode(errors="replace")) > _PATH_MAX or _too_long(*parts):
        hint = f"Linux has at most {_NAME_MAX} bytes a name and {_PATH_MAX} a path"
        raise ConfigError(problem=f"{what}: the path is too long", value=key, hint=hint)
    return posixpath.normpath("/" + path.lstrip("/"))


def _too_long(*names: str) -> bool:
    return any(len(name.encode(errors="replace")) > _NAME_MAX for name in names)


def files(given: Any) -> FrozenMap[str, tuple[bytes, int]]:
    """Files by path: content as bytes, and a mode."""
    checked = {path: _file(path, value) for path, value in by_path("files", given).items()}
    for path in checked:
        above = [parent for parent in map(str, Path(path).parents) if parent in checked]
        if above:
            problem = f"files: {above[0]} cannot be a file and hold another"
            raise ConfigError(problem=problem, value=path, hint="drop one of the two")
    return FrozenMap(checked)


def _file(path: str, value: Any) -> tuple[bytes, int]:
    content, mode = value if isinstance(value, tuple) and len(value) == 2 else (value, 0o644)
    if not isinstance(content, str | bytes):
        problem = f"files: the content of {path} is neither text nor bytes"
        hint = 'give "text", b"bytes" or (content, mode)'
        raise ConfigError(problem=problem, value=type(content).__name__, hint=hint)
    if not _is_int(mode) or not 0 <= mode <= 0o7777:
        hint = "give permission bits like 0o755"
        raise ConfigError(problem=f"files: {path} has no such mode", value=mode, hint=hint)
    return _bytes(f"files: {path}", content), mode


def _bytes(what: str, content: str | bytes) -> bytes:
    try:
        return content.encode() if isinstance(content, str) else content
    except UnicodeEncodeError:
        raise ConfigError(problem=f"{what} is no UTF-8", hint="give bytes instead of text") from None


def _texts(what: str, given: Any, suffixes: Sequence[str]) -> FrozenMap[str, str]:
    for name, text in mapping(what, given).items():
        known = ", ".join(f".{suffix}" for suffix in suffixes)
        well_formed = (
            isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9:_.\\@-]+", name) and not _too_long(name)
        )
        stem, _, suffix = name.rpartition(".") if isinstance(name, str) else ("", "", "")
        if not well_formed or not stem or suffix not in suffixes:
            hint = f"a name ends in one of {known}; drop-ins go into files"
            raise ConfigError(problem=f"{what}: no name of a unit", value=name, hint=hint)
        if not isinstance(text, str):
            problem = f"{what}: {name} is no text"
            raise ConfigError(problem=problem, value=type(text).__name__, hint="give the unit's text")
        _bytes(f"{what}: {name}", text)
    return FrozenMap(given)


def units(given: Any) -> FrozenMap[str, str]:
    """Texts of units by name (systemd.unit(5))."""
    return _texts("units", given, _UNITS)


def network_units(given: Any) -> FrozenMap[str, str]:
    """Texts of .network, .netdev and .link files by name."""
    return _texts("network_units", given, _NETWORK_UNITS)


def credentials(given: Any) -> FrozenMap[str, bytes]:
    """Credentials by name, as bytes (systemd.exec(5), CREDENTIALS)."""
    checked: dict[str, bytes] = {}
    for name, value in mapping("credentials", given).items():
        good = isinstance(name, str) and re.fullmatch(r"[!-9;-~]+", name) and not _too_long(name)
        if not good or "/" in name or name in (".", ".."):
            hint = "a name is printable ASCII without blanks, slashes and colons"
            raise ConfigError(problem="credentials: no name of a credential", value=name, hint=hint)
        if not isinstance(value, str | bytes):
            problem = f"credentials: {name} is neither text nor bytes"
            raise ConfigError(problem=problem, value=type(value).__name__, hint='give "text" or b"bytes"')
        checked[name] = _bytes(f"credentials: {name}", value)
    return FrozenMap(checked)


def config(given: Any) -> str | Path | tuple[str | Path, ...] | None:
    """A config or a list of them: text as given, paths made absolute."""
    if given is None:
        return None
    if isinstance(given, list | tuple):
        return tuple(_config(each) for each in given)
    return _config(given)


def _config(given: Any) -> str | Path:
    if isinstance(given, os.PathLike):
        return Path(given).absolute()
    if not isinstance(given, str) or not given.strip():
        hint = "give a Path, text (a path, a store path, a Nix expression, a name of the manifest) or a list of them"
        raise ConfigError(problem="no config of a node", value=given, hint=hint)
    return given


def image(given: Any) -> str | None:
    """An image's kind and what follows it, or a path; which kinds there are is not known here."""
    value = os.fspath(given) if isinstance(given, os.PathLike) else given
    if value is not None and (not isinstance(value, str) or not value.strip()):
        hint = 'give "host", "rootfs:DIRECTORY", "rootfs:FILE.tar" or a store path'
        raise ConfigError(problem="no image", value=given, hint=hint)
    return value


def network_name(given: Any) -> int | str:
    """A VLAN number or a network's name; a number as text is the number."""
    value = int(given) if isinstance(given, str) and re.fullmatch("[0-9]{1,9}", given) else given
    if _is_int(value) and 1 <= value <= 255:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", value):
        return value
    hint = "give a VLAN number from 1 to 255 (192.168.<number>.0/24), or a name of letters, digits and . _ -"
    raise ConfigError(problem="no number or name of a network", value=given, hint=hint)


def networks(given: Any) -> tuple[int | str, ...] | None:
    """A node's networks, each once."""
    if given is None:
        return None
    if not isinstance(given, list | tuple):
        hint = "give a list, like networks=[1] or networks=['front', 'back']"
        raise ConfigError(problem="networks is no list", value=given, hint=hint)
    checked = tuple(network_name(each) for each in given)
    for each in checked:
        if checked.count(each) > 1:
            hint = "a node has one interface a network: name each once"
            raise ConfigError(problem="networks: the same network twice", value=each, hint=hint)
    return checked


def cpus(given: Any) -> float | None:
    """How many processors a node may use."""
    if given is not None and (
        isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf
    ):
        raise ConfigError(
            problem="cpus: no number above zero", value=given, hint="give a number like 1 or 0.5"
        )
    return given


def tasks(given: Any) -> int | None:
    """How many processes and threads a node may have."""
    if given is not None and (not _is_int(given) or given <= 0):
        raise ConfigError(
            problem="tasks: no whole number above zero", value=given, hint="give a number like 400"
        )
    return given if given is None else int(given)


def private_users(given: Any) -> bool | None:
    """Whether a node has a user namespace of its own."""
    if given is not None and not isinstance(given, bool):
        raise ConfigError(problem="private_users", value=given, hint="give True, False or None")
    return given


def store(given: Any) -> str:
    """What a NixOS node sees of the Nix store."""
    if given not in ("host", "closure", "writable"):
        raise ConfigError(problem="store", value=given, hint='give "host", "closure" or "writable"')
    return str(given)


def special_args(given: Any) -> str:
    """Arguments of NixOS modules as JSON text; such a text is taken as it is."""
    try:
        value = json.loads(given) if isinstance(given, str) else dict(mapping("special_args", given))
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            problem=f"special_args: no data ({error})",
            value=given,
            hint="give what JSON has: texts, numbers, lists, dictionaries",
        ) from None
    raise ConfigError(problem="special_args: its keys are no texts", value=given, hint='give {"name": value}')


def nspawn_options(given: Any) -> tuple[str, ...]:
    """Arguments of systemd-nspawn."""
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in given):
        # Not its value: an option may hold a credential.
        problem = "nspawn_options is no list of texts"
        raise ConfigError(
            problem=problem, value=type(given).__name__, hint='give a list like ["--no-new-privileges=yes"]'
        )
    return tuple(given)


def subnet4(given: Any) -> ipaddress.IPv4Network | None:
    """A subnet of IPv4 with room for a node."""
    return None if given is None else _subnet("subnet4", ipaddress.IPv4Network, given, 30, "10.1.0.0/24")


def subnet6(given: Any) -> ipaddress.IPv6Network | None:
    """A subnet of IPv6 with room for a node."""
    return None if given is None else _subnet("subnet6", ipaddress.IPv6Network, given, 126, "fd00:1::/64")


def _subnet(what: str, kind: type[Subnet], given: Any, longest: int, example: str) -> Subnet:
    value = str(given)
    hint = f'give a subnet like "{example}"'
    if not isinstance(given, str | kind):
        raise ConfigError(problem=f"{what}: no subnet", value=given, hint=hint)
    try:
        subnet = kind(given)
    except ValueError as error:
        raise ConfigError(problem=f"{what}: no subnet ({error})", value=value, hint=hint) from None
    if subnet.prefixlen > longest:
        room = f"give a subnet with room for nodes, of at most /{longest}"
        raise ConfigError(problem=f"{what}: a network without free addresses", value=value, hint=room)
    if subnet.is_multicast or subnet.is_loopback or subnet.is_link_local or subnet.is_unspecified:
        raise ConfigError(problem=f"{what}: nodes can have no such addresses", value=value, hint=hint)
    return subnet


def host(given: Any) -> bool:
    """Whether the host side has an address on a network."""
    if not isinstance(given, bool):
        raise ConfigError(problem="host", value=given, hint="give True or False")
    return given


def mtu(given: Any) -> int | None:
    """Bytes a packet; IPv6 needs 1280 (RFC 8200)."""
    if given is not None and (not _is_int(given) or not 1280 <= given <= 65535):
        raise ConfigError(problem="mtu", value=given, hint="give bytes from 1280 to 65535")
    return given if given is None else int(given)


def variant_name(given: Any) -> str | None:
    """The name of a topology, which becomes a test ID."""
    if given is not None and (not isinstance(given, str) or not given):
        raise ConfigError(problem="a topology's name is no text", value=given, hint='say name="small"')
    return given


def names_of_nodes(given: Mapping[Any, object]) -> None:
    """Refuse names that no host may have, that are reserved, or that are the same as an identifier or host name."""
    seen: dict[tuple[str, str], str] = {}
    for name in given:
        text = name if isinstance(name, str) else ""
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", text):
            hint = "give 1 to 63 letters, digits, '-' and '_', with a letter or digit at both ends"
            raise ConfigError(problem="no host may have this name", node=name, value=name, hint=hint)
        # inet_aton(3) takes these for addresses, before any look at /etc/hosts.
        if re.fullmatch("[0-9]+|0[xX][0-9a-fA-F]*", text) or text.lower() == "localhost":
            hint = "choose another: programs take it for an address"
            raise ConfigError(problem="no host may have this name", node=name, value=name, hint=hint)
        if identifier(text) in RESERVED:
            hint = "choose another: it is a fixture of pytest or of this plugin"
            raise ConfigError(problem="the name is reserved", node=name, value=name, hint=hint)
        for key in (("identifier", identifier(text)), ("host name", host_name(text).lower())):
            other = seen.setdefault(key, name)
            if other != name:
                problem = f"has the same {key[0]} ({key[1]}) as node {other!r}"
                raise ConfigError(problem=problem, node=name, value=name, hint="rename one of them")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
