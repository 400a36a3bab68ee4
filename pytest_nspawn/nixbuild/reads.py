"""What an evaluation read, and whether any of it is another now.

strace(1) tells which paths Nix looked at; each is remembered by what a change of it would change: a file by its inode,
size and times, a directory that was listed by its names, a missing path by being missing. What lies in the store never
changes. An evaluation that cannot be repeated from files alone is not remembered: one that went to the network, or that
asks for the time.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

STRACE = (
    "strace",
    "-f",
    "--seccomp-bpf",
    "-qq",
    "-xx",
    "-y",
    "-e",
    "signal=none",
    "-e",
    "trace=%file,getdents64,connect",
)
"""The arguments of strace up to `-o FILE PROGRAM...`; it stops the program at these calls only (seccomp)."""

_STORE = "/nix/store/"
# Nix's own books, and file systems that hold no settings.
_IGNORED = re.compile(
    r"/nix/var/(?!nix/profiles)|/proc/|/sys/|/dev/|/nix/store$|/tmp/nix-[0-9]|/var/run/nscd/"
)
_NIX_CACHE = re.compile(r"/\.cache/nix/")
_CALL = re.compile(r"^\d+ +(?P<name>\w+)\((?P<arguments>.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DIRECTORY = re.compile(r"^(?:AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2})*)>")
_RESUMED = re.compile(r"^\d+ +<\.\.\. ")
_TIME = b"currentTime"

Signature = str
Reads = dict[str, Signature]

_MISSING = "-"
_THERE = "d"
_TICK = 20_000_000
"""Nanoseconds that a file's time may be behind the clock: the kernel's own tick."""


@dataclass(slots=True)
class Touched:
    """Paths that an evaluation looked at."""

    paths: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    network: bool = False


def parse(lines: Iterator[str]) -> Touched:
    """Read strace's output, made with the arguments in `STRACE`."""
    touched = Touched()
    for line in lines:
        match = _CALL.match(line)
        if match is None or _RESUMED.match(line):
            continue
        name, arguments = match["name"], match["arguments"]
        directory = _DIRECTORY.match(arguments)
        where = _decoded(directory[1]) if directory is not None else ""
        if name == "connect":
            touched.network |= "AF_INET" in arguments
        elif name == "getdents64":
            touched.listed.add(where)
        elif (text := _TEXT.search(arguments)) is not None and text[
            1
        ]:  # by name: what has a descriptor was opened
            path = os.path.normpath(os.path.join(where, _decoded(text[1])))
            touched.paths.add(path)
            if not line.rstrip().endswith(")") and " = -1 " not in line:
                touched.found.add(path)
    return touched


def signatures(touched: Touched, *, since: int, trusted: str, own: str) -> Reads | None:
    """What to compare later; None where that would not be enough to know that nothing changed.

    `since` is when the evaluation began (time.time_ns()); what lies below `trusted` is known to ask for no time. What lies
    in `own` was written for this evaluation, from what its key is made of.
    """
    if touched.network:
        return None
    reads: Reads = {}
    for path in touched.paths | touched.listed:
        if path.startswith((_STORE, f"{own}/")):
            if not path.startswith(trusted) and path.endswith(".nix") and _mentions_time(path):
                return None
            continue
        if _IGNORED.match(path) or _NIX_CACHE.search(path):
            continue
        try:
            found = os.lstat(path)
        except OSError:
            if path in touched.found:
                return None  # it went while it was read
            reads[path] = _MISSING
            continue
        if not stat.S_ISDIR(found.st_mode) and found.st_ctime_ns > since - _TICK:
            return None  # it changed while it was read, or may have
        if path.endswith(".nix") and not path.startswith(trusted) and _mentions_time(path):
            return None
        reads[path] = signature(path, listed=path in touched.listed)
    return reads


def unchanged(reads: Mapping[str, Signature]) -> bool:
    """Whether everything is as it was."""
    return all(signature(path, listed=known.startswith("l")) == known for path, known in reads.items())


def signature(path: str, *, listed: bool = False) -> Signature:
    """What a change of a path would change; `listed` for a directory whose names were read."""
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            target = os.path.realpath(path)
            return f"s{os.readlink(path)} {signature(target, listed=listed)}"
        if not stat.S_ISDIR(found.st_mode):
            return f"f{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        if not listed:
            return _THERE
        names = "\0".join(sorted(os.listdir(path)))
        return "l" + hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
    except OSError:
        return _MISSING


def _mentions_time(path: str) -> bool:
    try:
        return _TIME in Path(path).read_bytes()
    except OSError:
        return False


def _decoded(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode("utf-8", "surrogateescape")
