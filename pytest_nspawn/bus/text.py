"""Names and properties of units as systemctl writes them: pure."""

from __future__ import annotations

import re
from typing import Any

_SUFFIXES = frozenset(
    ("automount", "device", "mount", "path", "scope", "service", "slice", "socket", "swap", "target", "timer")
)


def unit_name(name: str) -> str:
    """A unit's name as systemctl takes it: `nginx` is nginx.service, `/srv/data` is srv-data.mount (systemd.unit(5))."""
    if name.startswith("/"):
        suffix = "device" if name.startswith(("/dev/", "/sys/")) else "mount"
        return f"{_escaped_path(name)}.{suffix}"
    return name if name.rpartition(".")[2] in _SUFFIXES else f"{name}.service"


def unit_path(name: str) -> str:
    """A unit's object path: every byte of its name but letters and digits as `_` and two hexadecimal digits."""
    label = re.sub(rb"^[0-9]|[^A-Za-z0-9]", lambda found: b"_%02x" % ord(found[0]), name.encode())
    return f"/org/freedesktop/systemd1/unit/{label.decode() or '_'}"


def _escaped_path(path: str) -> str:
    words = "/".join(filter(None, path.split("/")))
    if not words:
        return "-"
    escaped = re.sub(rb"^\.|[^A-Za-z0-9:_./]", lambda found: b"\\x%02x" % ord(found[0]), words.encode())
    return escaped.decode().replace("/", "-")


# Numbers that systemctl prints as something else, in every version since 252.
_OCTAL = ("UMask", "Mode")
_PRINTED_OTHERWISE = re.compile(
    r"USec|Timestamp$|^(CoredumpFilter|RestrictNamespaces|MountFlags|CapabilityBoundingSet|AmbientCapabilities)$"
)
_INFINITY = re.compile(r"^Limit|USec$|Memory(Low|Min|High|Max|SwapMax)$|TasksMax$")
_MOMENTS = ("NextElapseUSecRealtime", "LastTriggerUSec", "ManagedOOMMemoryPressureDurationUSec")
_NOT_SET = re.compile(r"^(Startup)?(CPU|IO)Weight$|^(Memory|Tasks)Current$|NSec$")
_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9_./:@%+=,-]+")
_MOST = 2**64 - 1


def format_property(name: str, kind: str, value: Any) -> str:
    """A property's value as `systemctl show` prints it; `kind` is its D-Bus signature. Raises LookupError if unsure."""
    if kind == "s":
        return str(value) if "\n" not in value else "[unprintable]"
    if kind == "b":
        return "yes" if value else "no"
    if kind == "ay" and name == "InvocationID":
        return bytes(value).hex()
    if kind in ("i", "x") and not (name == "NUMAPolicy" or (value < 0 and name.endswith("ExitStatus"))):
        return str(value)
    if kind == "d":
        return f"{value:g}"
    if kind == "u":
        if any(word in name for word in _OCTAL):
            return f"{value:04o}"
        return "[not set]" if name in ("UID", "GID") and value == 2**32 - 1 else str(value)
    if kind == "as" and all(_NEEDS_NO_QUOTES.fullmatch(word) for word in value):
        return " ".join(value)
    if kind == "t" and value == _MOST and name not in _MOMENTS:
        if _INFINITY.search(name):
            return "infinity"
        if _NOT_SET.search(name):
            return "[not set]"
    elif kind == "t" and not _PRINTED_OTHERWISE.search(name) and not (value == 0 and name.endswith("Weight")):
        return str(value)
    raise LookupError(f"only systemctl can print {name}")
