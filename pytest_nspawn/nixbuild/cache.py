"""Results of evaluations, remembered by what they read, and kept from the garbage collector while they are used."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
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

    def find(self) -> Path | None:
        """The result, where everything that its evaluation read is as it was and it is still in the store."""
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        result = Path(known["result"])
        if not result.exists() or not unchanged(known["reads"]):
            return None
        os.utime(self.directory)
        return result

    def root(self) -> Path:
        """A link for Nix to make: it keeps a result from the garbage collector. Each is another one."""
        return self.directory / f"root-{time.time_ns()}"

    def remember(self, result: Path, reads: Reads | None) -> None:
        """Remember a result, or (None) that it cannot be; roots of results that nobody uses any more go."""
        if reads is None:
            self._file.unlink(missing_ok=True)
        else:
            temporary = self.directory / f"result.{os.getpid()}"
            temporary.write_text(json.dumps({"result": str(result), "reads": reads}), encoding="utf-8")
            temporary.replace(self._file)
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
