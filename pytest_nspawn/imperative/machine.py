"""The machine that the command works on: does steps, answers questions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn, Protocol

from pytest_nspawn import process
from pytest_nspawn.errors import HostError
from pytest_nspawn.imperative.steps import Delete, Directory, Run, Step, Write


class Machine(Protocol):
    """What the command asks of a machine; tests have one of their own."""

    def do(self, step: Step) -> None:
        """Raises HostError with what the program or the system said."""

    def build(self, argv: Sequence[str]) -> str:
        """Run a program that shows its progress; gives what it printed."""

    def ask(self, *argv: str) -> str:
        """What a program prints, whatever its exit code."""

    def text(self, path: PurePosixPath) -> str | None:
        """A file's text, None where there is none."""

    def names(self, directory: PurePosixPath) -> list[str]:
        """What is in a directory, sorted; nothing where there is none."""

    def target(self, link: PurePosixPath) -> str | None:
        """Where a link leads to, as it is written."""

    def become(self, *argv: str) -> NoReturn:
        """Go on as another program, with this terminal."""


class RealMachine:
    """This one."""

    def do(self, step: Step) -> None:
        """Raises HostError with what the program or the system said."""
        try:
            match step:
                case Run():
                    self._run(step.argv)
                case Directory():
                    os.makedirs(step.path, exist_ok=True)
                case Write():
                    os.makedirs(step.path.parent, exist_ok=True)
                    Path(step.path).write_text(step.text, encoding="utf-8")
                case Delete():
                    self._delete(Path(step.path))
        except OSError as error:
            raise HostError(problem=f"cannot {step}: {error.strerror}") from error

    def build(self, argv: Sequence[str]) -> str:
        """Run a program that shows its progress; gives what it printed."""
        try:
            result = process.run_visibly(argv)
        except FileNotFoundError as error:
            raise HostError(problem=f"there is no {argv[0]} on PATH") from error
        if result.returncode != 0:
            raise HostError(problem=f"{argv[0]} ended with exit status {result.returncode}, see above")
        return result.stdout.strip()

    def ask(self, *argv: str) -> str:
        """What a program prints, whatever its exit code."""
        return process.run(argv).stdout.strip()

    def text(self, path: PurePosixPath) -> str | None:
        """A file's text, None where there is none."""
        try:
            return Path(path).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, directory: PurePosixPath) -> list[str]:
        """What is in a directory, sorted; nothing where there is none."""
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []

    def target(self, link: PurePosixPath) -> str | None:
        """Where a link leads to, as it is written."""
        return os.readlink(link) if os.path.islink(link) else None

    def become(self, *argv: str) -> NoReturn:
        """Go on as another program, with this terminal."""
        os.execvp(argv[0], argv)

    def _run(self, argv: Sequence[str]) -> None:
        result = process.run(argv)
        if result.returncode != 0:
            said = result.stderr.strip() or result.stdout.strip() or "it said nothing"
            raise HostError(problem=f"{argv[0]} ended with exit status {result.returncode}: {said}")

    def _delete(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
