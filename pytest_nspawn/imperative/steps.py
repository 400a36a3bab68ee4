"""What a command does to the machine, as values that describe themselves: printed by --dry-run, else done in order."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath as Path


@dataclass(frozen=True, slots=True)
class Run:
    """Run a program, and fail with it."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class Directory:
    """Make a directory with its parents, where there is none."""

    path: Path

    def __str__(self) -> str:
        return f"make the directory {self.path}"


@dataclass(frozen=True, slots=True)
class Write:
    """Write a file, its directory included."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a file, a link or an empty directory, where there is one."""

    path: Path

    def __str__(self) -> str:
        return f"delete {self.path}"


Step = Run | Directory | Write | Delete


def run(*argv: str) -> Run:
    """Shorter to write."""
    return Run(argv)
