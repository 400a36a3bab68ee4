"""Files of a node: opened inside it, read and written from here."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import TypeAlias

from pytest_nspawn.machine.commands import Commands
from pytest_nspawn.machine.context import Context, hidden, seconds_of
from pytest_nspawn.timing import Deadline, Seconds

__tracebackhide__ = hidden

NodePath: TypeAlias = str | PurePath

# `wait_for_file` is `test -e FILENAME` in the NixOS driver: whatever a shell expands is a shell's business.
_SHELL_CHARACTERS = frozenset("*?[]{}~$`\\'\"<>|&;()# \t\n!")

_FIRST_LOOK, _SLOWEST_LOOK = 0.02, 0.2
"""Seconds between two looks at a path although nothing changed near it: /proc and /sys tell no changes."""

_BUSY = 0.005
"""Seconds of rest between two looks at a path beside which much is going on."""


class Files:
    """Reads, writes and waits for files."""

    def __init__(self, context: Context, commands: Commands) -> None:
        self._context = context
        self._commands = commands

    def read(self, path: NodePath) -> bytes:
        """A regular file's content. Raises OSError as open(2)."""
        with os.fdopen(self._context.shell().open(rooted(path), os.O_RDONLY), "rb") as file:
            return file.read()

    def write(self, path: NodePath, content: bytes, mode: int | None) -> int:
        """Write a regular file, new or not. Raises OSError as open(2)."""
        shell = self._context.shell()
        where = rooted(path)
        fd = shell.open(where, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644 if mode is None else mode & 0o666)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        if mode is not None:
            shell.chmod(where, mode)
        return len(content)

    def exists(self, path: NodePath) -> bool:
        """Whether a path leads to something."""
        return self._context.shell().exists(rooted(path))

    def wait_for(self, filename: NodePath, timeout: Seconds | None) -> None:
        """Wait until a file exists. Raises TimeoutExceeded."""
        name = os.fspath(filename)
        what = f"waiting for file {name!r}"
        if not name.startswith("/") or _SHELL_CHARACTERS.intersection(name):
            found = self._test(name)
            self._context.retry(found, timeout=timeout, what=what, interval=(0.01, _SLOWEST_LOOK))
            return
        limit = seconds_of(timeout)
        deadline = Deadline(limit)
        pause = _FIRST_LOOK
        with self._context.waiting(what):
            while not self._context.retry_once(partial(self._look, name, pause, deadline)):
                if deadline.expired:
                    raise self._context.expired(deadline, limit, what, "it does not exist") from None
                pause = min(pause * 1.5, _SLOWEST_LOOK)

    def _test(self, name: str) -> Callable[[bool], bool]:
        return lambda _is_last: self._commands.run(f"test -e {name}", timeout=60, polled=True).exit_code == 0

    def _look(self, path: str, pause: float, deadline: Deadline) -> bool:
        """Whether a path exists; where it does not, wait until something changes near it, for a while."""
        begin = time.monotonic()
        exists, changes = self._context.shell().watch(path)
        try:
            if not exists:
                remaining = deadline.remaining()
                step = pause if remaining is None else max(0.0, min(pause, remaining))
                if select.select([changes], [], [], step)[0] and time.monotonic() - begin < _BUSY:
                    time.sleep(_BUSY)
        finally:
            os.close(changes)
        return exists


def rooted(path: NodePath) -> str:
    """A path of a node, from its root."""
    return os.path.join("/", os.fspath(path))
