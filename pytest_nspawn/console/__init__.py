"""A node's console: drained for the node's whole life, logged, searched, typed at.

The log keeps every byte; what is searched and shown has no escape sequences and no carriage returns.
pty(7), systemd-nspawn(1).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import select
import sys
import termios
import threading
import time
import tty
from typing import TYPE_CHECKING

from pytest_nspawn.console.log import LOG_LIMIT, Log
from pytest_nspawn.console.text import Lines, plain
from pytest_nspawn.errors import ConfigError, NotRunningError, TimeoutExceeded
from pytest_nspawn.timing import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_nspawn.console.search import Search

__all__ = ["LOG_LIMIT", "SEND_LIMIT", "Console"]

SEND_LIMIT = 10.0
"""Seconds in which the node must take what is typed."""

_ESCAPE = b"\x1d"  # ^]
_CHUNK = 1 << 16
_PIECES = 64

_logger = logging.getLogger(__name__)


class Console:
    """The terminal of one node over all its boots; owns `master_fd`. Methods may be called from several threads."""

    def __init__(self, master_fd: int, node: str) -> None:
        self.node = node
        self._master = master_fd
        self._log = Log()
        self._searching = threading.Lock()
        self._search: Search | None = None
        self._sending = threading.Lock()
        self._last_sent = b""
        self._closing = threading.Lock()
        self._watchers = threading.Lock()
        self._subscribers: tuple[Callable[[str], None], ...] = ()
        self._lines: Lines | None = None
        self._bells: tuple[int, ...] = ()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        os.set_blocking(master_fd, False)
        self._taking = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name=f"console of {node}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Console of {self.node}>"

    def close(self) -> None:
        """Take what is there and close the terminal; the log stays readable."""
        with self._closing:
            if self._master < 0:
                return
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            with self._sending:
                os.close(self._master)
                os.close(self._wake)
                self._master = self._wake = -1

    def log(self, *, stripped: bool = False) -> str:
        """All that the node printed; `stripped`: without escape sequences and carriage returns."""
        data = self._log.read_from(self._log.start)
        return plain(data) if stripped else data.decode(errors="replace")

    def tail(self, limit: int = 1 << 16) -> str:
        """The last `limit` characters, stripped."""
        # Four times as many bytes leave room for colours and for long characters.
        return plain(self._log.read_from(self._log.end - 4 * limit))[-limit:]

    def settle(self, limit: float = 1.0) -> None:
        """Wait until what the node has printed by now is in the log, for at most `limit` seconds."""
        deadline = Deadline(limit)
        while not deadline.expired and not self._log.ended:
            end = self._log.end
            with self._taking:
                if self._master < 0 or not _poll((self._master, select.POLLIN), timeout=0):
                    return
            with contextlib.suppress(EOFError):
                self._log.wait(end, deadline)

    def wait_for(self, regex: str | re.Pattern[str], deadline: Deadline) -> str:
        """Wait for a text to be printed, in what no earlier call has consumed; the text that matched.

        What was printed before counts. `^` and `$` match at the ends of lines, and a match may span lines. What is found
        is consumed with all before it. Raises TimeoutExceeded, and NotRunningError where the console is closed.
        """
        from pytest_nspawn.console.search import Search

        pattern = re.compile(regex, re.MULTILINE) if isinstance(regex, str) else regex
        what = f"waiting for {pattern.pattern!r} on the console"
        if not self._searching.acquire(timeout=_patience(deadline, -1.0)):
            raise self._expired(what, deadline)
        try:
            self._search = self._search or Search(self._log)
            found = self._search.find(pattern, deadline)
        except EOFError:
            raise NotRunningError(node=self.node, problem=f"the console was closed while {what}") from None
        finally:
            self._searching.release()
        if found is None:
            raise self._expired(what, deadline)
        return found

    def send(self, text: str, deadline: Deadline | None = None) -> None:
        r"""Type a text. Raises TimeoutExceeded where nothing reads the terminal, NotRunningError where it is closed.

        Raises ValueError, and types nothing, for a ^] (`\x1d`) right after another, also of an earlier call: nspawn takes
        those for itself, and a third ends the node. By count, not by time: an nspawn that is busy reads late.
        """
        data = text.encode(errors="surrogateescape")
        limit = SEND_LIMIT if deadline is None else _patience(deadline, SEND_LIMIT)
        with self._sending:
            if 2 * _ESCAPE in self._last_sent + data:
                raise ValueError(
                    r"two ^] (\x1d) in a row would go to systemd-nspawn, and may end the node: type another key between"
                )
            if not self._write(data, time.monotonic() + limit):
                what = "typing at the console, which nothing reads"
                raise TimeoutExceeded(what=what, elapsed=limit, limit=limit, node=self.node)

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with every line from now on, stripped and without its end; what is returned ends that.

        It is called on the thread that drains the console, which a slow one holds up.
        """
        with self._watchers:
            self._subscribers += (callback,)

        def unsubscribe() -> None:
            with self._watchers:
                self._subscribers = tuple(each for each in self._subscribers if each is not callback)

        return unsubscribe

    def interact(self) -> None:
        """Attach the user's terminal until ^] is typed three times within a second, or the console is closed."""
        terminal = sys.__stdin__
        if terminal is None or not terminal.isatty():
            problem = "the console needs a terminal to talk to"
            raise ConfigError(problem=problem, node=self.node, hint="run pytest in one, with -s")
        fd = terminal.fileno()
        saved = termios.tcgetattr(fd)
        bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with self._watchers:
            self._bells += (bell,)
        try:
            tty.setraw(fd)
            os.write(fd, f"[console of {self.node}; ^] three times leaves it]\r\n".encode())
            self._relay(fd, bell)
            os.write(fd, b"\r\n")
        finally:
            termios.tcsetattr(fd, termios.TCSADRAIN, saved)
            with self._watchers:
                self._bells = tuple(each for each in self._bells if each != bell)
            os.close(bell)

    def _relay(self, terminal: int, bell: int) -> None:
        """Copy both ways between the user's terminal and the node."""
        position = max(self._log.start, self._log.end - 4096)
        begins_within_a_line = position > self._log.start
        keys = Keys()
        while not (self._log.ended and position >= self._log.end):
            with contextlib.suppress(OSError):
                size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
            position, data = self._log.read(position, _CHUNK)
            if begins_within_a_line:
                data, begins_within_a_line = data.partition(b"\n")[2], False
            while data:
                data = data[os.write(terminal, data) :]
            ready = _poll((terminal, select.POLLIN), (bell, select.POLLIN))
            if bell in ready:
                os.eventfd_read(bell)
            if terminal in ready:
                typed = keys.take(os.read(terminal, 1024), time.monotonic())
                if typed is None:
                    return
                # What the node does not take is lost, as on any terminal.
                with contextlib.suppress(TimeoutExceeded, NotRunningError, ValueError):
                    self.send(typed.decode(errors="surrogateescape"))

    def _write(self, data: bytes, end: float) -> bool:
        """Write all of it; False where the time is over. The caller holds `_sending`."""
        while data:
            if self._master < 0 or self._log.ended:
                raise NotRunningError(node=self.node, problem="the console is closed")
            left = end - time.monotonic()
            ready = _poll((self._master, select.POLLOUT), (self._wake, select.POLLIN), timeout=max(0.0, left))
            if not ready:
                return False
            try:
                # A terminal's queue takes 4 KiB; more than it takes at once would be cut anyway.
                count = os.write(self._master, data[:1024])
            except BlockingIOError:
                continue
            except OSError as error:
                raise NotRunningError(node=self.node, problem="the console is closed") from error
            self._last_sent = data[:count][-1:]
            data = data[count:]
        return True

    def _expired(self, what: str, deadline: Deadline) -> TimeoutExceeded:
        line = self.tail(400).strip().rpartition("\n")[2]
        last = f"the last line is {line!r}" if line else "nothing was printed"
        limit = deadline.limit or 0.0
        return TimeoutExceeded(what=what, elapsed=deadline.elapsed, limit=limit, last=last, node=self.node)

    def _drain(self) -> None:
        """Read until the owner closes, or until nobody holds the other side open (EIO)."""
        closing = False
        try:
            while not closing:
                closing = self._wake in _poll((self._master, select.POLLIN), (self._wake, select.POLLIN))
                # At the end all that is there, but no more than a node can print for ever.
                for _round in range(64 if closing else 1):
                    with self._taking:
                        data = self._read_available()
                        if not data:
                            break
                        self._take(data)
        except OSError as error:
            if error.errno != errno.EIO:
                _logger.exception("%s: the console cannot be read any more", self.node)
        finally:
            self._log.finish()
            self._take(b"", final=True)

    def _read_available(self) -> bytes:
        """What is there, up to some size: few large pieces cost less. Raises OSError at the end."""
        pieces: list[bytes] = []
        try:
            while len(pieces) < _PIECES:
                piece = os.read(self._master, _CHUNK)
                if not piece:
                    raise OSError(errno.EIO, "end of file")
                pieces.append(piece)
        except BlockingIOError:
            pass
        except OSError:
            # What came before the end counts; the next read tells of the end again.
            if not pieces:
                raise
        return b"".join(pieces)

    def _take(self, data: bytes, *, final: bool = False) -> None:
        if data:
            self._log.append(data)
        with self._watchers:
            subscribers = self._subscribers
            for bell in self._bells:
                os.eventfd_write(bell, 1)
        if not subscribers:
            self._lines = None
            return
        self._lines = self._lines or Lines()
        for line in self._lines.take(data, final=final):
            for callback in subscribers:
                try:
                    callback(line)
                except Exception:
                    _logger.exception("%s: what listens to the console's lines failed", self.node)


class Keys:
    """Tells which of the keys typed go to the node: of a run of ^] the first, and a third one within a second ends."""

    def __init__(self) -> None:
        self._escapes: list[float] = []
        self._in_run = False

    def take(self, typed: bytes, now: float) -> bytes | None:
        """What of it goes on; None: the user detaches (also at the end of the terminal). `now` in seconds."""
        if not typed:
            return None
        passed = b""
        for key in (typed[index : index + 1] for index in range(len(typed))):
            if key != _ESCAPE:
                self._escapes.clear()
            else:
                self._escapes = [*(at for at in self._escapes if now - at <= 1.0), now]
                if len(self._escapes) >= 3:
                    return None
            if key != _ESCAPE or not self._in_run:
                passed += key
            self._in_run = key == _ESCAPE
        return passed


def _patience(deadline: Deadline, unlimited: float) -> float:
    remaining = deadline.remaining()
    return unlimited if remaining is None else max(0.0, remaining)


def _poll(*wanted: tuple[int, int], timeout: float | None = None) -> set[int]:
    """The descriptors that are ready, or hung up; none after `timeout` seconds."""
    poll = select.poll()
    for fd, events in wanted:
        poll.register(fd, events)
    # Rounded up: a timeout must not come too early and spin.
    return {fd for fd, _event in poll.poll(None if timeout is None else timeout * 1000 + 1)}
