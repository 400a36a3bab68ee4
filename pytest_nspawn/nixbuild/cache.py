"""Results of evaluations (files), remembered by what they read, and kept from the garbage collector while they are used."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_nspawn.nixbuild.reads import Reads, unchanged

_UNUSED = 30 * 24 * 3600
"""Seconds after which a result that nobody asked for is forgotten, and left to the garbage collector."""


def home() -> Path:
    """Where results are remembered: below XDG_CACHE_HOME (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "pytest-nspawn", "nix")


class Entry:
    """What is remembered of one request, in a directory of its own."""

    def __init__(self, key: str) -> None:
        self.directory = home() / key
        self._file = self.directory / "result.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from making the same (xdist's workers); ends with the process."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def find(self) -> list[Path]:
        """The results, where everything that their evaluation read is as it was and they are still in the store."""
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
            results, read = [Path(each) for each in known["results"]], known["reads"]
        except (OSError, ValueError, KeyError):
            return []  # nothing is remembered, or by another version of this
        if not all(each.exists() for each in results) or not unchanged(read):
            return []
        os.utime(self.directory)
        return results

    def write(self, name: str, text: str) -> Path:
        """Write a result that is none of the store's."""
        path = self.directory / f"{name}.json"
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        return path

    def root(self) -> Path:
        """A link for Nix to make: it keeps a result from the garbage collector. Each is another one."""
        return self.directory / f"root-{time.time_ns()}"

    def remember(self, results: Sequence[Path], reads: Reads | None) -> None:
        """Remember results, or (None) that they cannot be; roots of results that nobody uses any more go."""
        if reads is None:
            self._file.unlink(missing_ok=True)
        else:
            self.write("result", json.dumps({"results": [str(each) for each in results], "reads": reads}))
        os.utime(self.directory)
        _forget(self.directory)
        for other in self.directory.parent.iterdir():
            if time.time() - other.stat().st_mtime > _UNUSED:
                shutil.rmtree(other, ignore_errors=True)


def _forget(directory: Path) -> None:
    """Remove the roots of earlier results, but for those of today: another run may have nodes of them."""
    for link in directory.glob("root-*"):
        if time.time() - link.lstat().st_mtime > 24 * 3600:
            link.unlink(missing_ok=True)
