"""What nodes wait for while they boot, on a line of the terminal that leaves no trace."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import pytest

PATIENCE = 1.0
"""Seconds that a boot may take before it is worth a line."""
REFRESH = 0.2


class Terminal(Protocol):
    """Where the line goes."""

    def write(self, text: str) -> None:
        """Write at once."""

    @property
    def column(self) -> int:
        """Where pytest's own line ends."""

    @property
    def width(self) -> int:
        """Columns of the screen."""

    def close(self) -> None:
        """Let go of it."""


class RealTerminal:
    """The terminal that pytest reports to, by a descriptor that no capturing redirects."""

    def __init__(self, config: pytest.Config, fd: int) -> None:
        self._config = config
        self._fd = fd

    def write(self, text: str) -> None:
        """Write at once; a terminal that went away is no fault of the tests."""
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode(errors="replace"))

    @property
    def column(self) -> int:
        """Where pytest's own line ends."""
        return self._config.get_terminal_writer().width_of_current_line

    @property
    def width(self) -> int:
        """Columns of the screen."""
        return shutil.get_terminal_size().columns

    def close(self) -> None:
        """Close our descriptor."""
        os.close(self._fd)


def terminal_of(config: pytest.Config) -> Terminal | None:
    """The terminal of a run, or None: an xdist worker has none, and a file wants no status lines."""
    if hasattr(config, "workerinput") or not config.pluginmanager.has_plugin("terminal"):
        return None
    try:
        return (
            RealTerminal(config, os.dup(1)) if os.isatty(1) else None
        )  # not captured yet: this is configuration
    except OSError:
        return None


class Progress:
    """Boots that go on; from the first that takes long, a thread of its own shows them."""

    def __init__(self, terminal: Terminal | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal = terminal
        self._clock = clock
        self._boots: dict[object, tuple[str, float, Callable[[], str]]] = {}
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._closed = False
        self._pauses = 0
        self._column: int | None = None

    def started(self, key: object, name: str, status: Callable[[], str]) -> None:
        """A boot began; `status` tells what it waits for. On any thread."""
        if self._terminal is None:
            return
        with self._changed:
            self._boots[key] = (name, self._clock(), status)
            if self._thread is None:
                self._thread = threading.Thread(target=self._show, name="nspawn-progress", daemon=True)
                self._thread.start()
            self._changed.notify()

    def ended(self, key: object) -> None:
        """A boot is over, well or not. On any thread."""
        with self._changed:
            self._boots.pop(key, None)
            self._changed.notify()

    def close(self) -> None:
        """Take the line away for good."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the terminal to somebody else."""
        with self._changed:
            self._pauses += 1
            self._erase()
        try:
            yield
        finally:
            with self._changed:
                self._pauses -= 1
                self._changed.notify()

    def line(self) -> str:
        """What is to be shown just now: empty where no boot takes long."""
        now = self._clock()
        slow = [
            f"{name}: {status() or 'starting'} ({now - since:.0f} s)"
            for name, since, status in self._boots.values()
            if now - since >= PATIENCE
        ]
        return " | ".join(slow)

    def _show(self) -> None:
        with self._changed:
            while not self._closed:
                self._draw("" if self._pauses else self.line())
                # The clock is part of the line, and a status has no event of its own: so redraw while there is one.
                self._changed.wait(REFRESH if self._boots else None)
            self._erase()

    def _draw(self, line: str) -> None:
        if not line or self._terminal is None:
            self._erase()
            return
        printable = "".join(char if char.isprintable() else "?" for char in line)[
            : max(self._terminal.width - 1, 1)
        ]
        if self._column is None:  # beneath pytest's own line, which may not be finished
            self._column = self._terminal.column
            self._terminal.write("\n")
        self._terminal.write(f"\r\x1b[K{printable}")

    def _erase(self) -> None:
        if self._column is None or self._terminal is None:
            return
        forward = f"\x1b[{self._column}C" if self._column else ""
        self._terminal.write(f"\r\x1b[K\x1b[A{forward}")
        self._column = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Generator[None, Any, Any]:
        """Stay out of the way of pytest's own lines."""
        with self.paused():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self) -> Generator[None, Any, Any]:
        """Stay out of the way of pytest's own lines."""
        with self.paused():
            return (yield)

    def pytest_enter_pdb(self) -> None:
        """Leave the terminal to the debugger."""
        with self._changed:
            self._pauses += 1
            self._erase()

    def pytest_leave_pdb(self) -> None:
        """Come back after the debugger."""
        with self._changed:
            self._pauses -= 1
            self._changed.notify()
