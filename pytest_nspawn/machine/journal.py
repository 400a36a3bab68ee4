"""The journal of a node: what it holds, and what comes.

journalctl writes JSON and only the fields that are shown: an entry may hold any bytes and several lines, and patterns
are Python's, whether or not the node's journalctl was built with a regular expression library.
"""

from __future__ import annotations

import json
import re
import select
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pytest_nspawn.errors import MachineError, NotRunningError
from pytest_nspawn.machine.context import Context, hidden, seconds_of
from pytest_nspawn.shell import RemoteProcess
from pytest_nspawn.timing import Deadline, Seconds

__tracebackhide__ = hidden

_FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_COMM,_PID"
_READ_LIMIT = 120.0
_TAIL_LIMIT = 10.0
_TAIL_LINES = 20
_CHUNK = 1 << 16
_AGAIN = 0.2
"""Seconds between two starts of a journalctl that ends by itself: the journal may not be there yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry; `moment` in microseconds since the epoch."""

    moment: int
    source: str
    message: str

    def __str__(self) -> str:
        clock = datetime.fromtimestamp(self.moment / 1_000_000).strftime("%b %d %H:%M:%S.%f")  # noqa: DTZ006 (as journalctl)
        return f"{clock} {self.source}: {self.message}"


class Journal:
    """Reads and follows one node's journal."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def read(
        self,
        *,
        unit: str | None,
        since: str | datetime | timedelta | None,
        grep: str | None,
        lines: int | None = None,
        timeout: float = _READ_LIMIT,
    ) -> str:
        """The entries as text, one or more lines each. Raises MachineError where journalctl fails."""
        pattern = re.compile(grep) if grep is not None else None
        command = _journalctl(unit=unit, since=since, lines=lines)
        result = self._context.shell().run(command, timeout=timeout)
        # Exit code 1 with nothing printed is how some versions say that there are no entries.
        if result.exit_code != 0 and (result.exit_code != 1 or "No journal files" not in result.stderr):
            problem = f"reading the journal failed with exit code {result.exit_code}: {result.stderr.strip()}"
            raise MachineError(node=self._context.node, problem=problem)
        entries = (_entry(line) for line in result.stdout.splitlines())
        return "".join(f"{each}\n" for each in entries if pattern is None or pattern.search(each.message))

    def tail(self, unit: str) -> str:
        """The last that a unit logged, for a message; empty where that cannot be had."""
        try:
            return self.read(unit=unit, since=None, grep=None, lines=_TAIL_LINES, timeout=_TAIL_LIMIT).rstrip(
                "\n"
            )
        except MachineError as error:
            # The message is about something else, which this must not hide.
            return f"({error})"

    def wait_for(self, regex: str, unit: str | None, timeout: Seconds | None) -> str:
        """Wait for an entry of this boot whose message matches; gives the message."""
        pattern = re.compile(regex)
        what = f"waiting for {regex!r} in the journal" + (f" of {unit}" if unit is not None else "")
        limit = seconds_of(timeout)
        deadline = Deadline(limit)
        last = "nothing logged"
        with self._context.waiting(what):
            while True:
                for entry in self._follow(unit, deadline):
                    last = str(entry)
                    if pattern.search(entry.message):
                        return entry.message
                if deadline.expired:
                    raise self._context.expired(deadline, limit, what, last) from None
                time.sleep(_left(deadline, _AGAIN) or 0.0)

    def _follow(self, unit: str | None, deadline: Deadline) -> Iterator[Entry]:
        """The entries of this boot and those that come, until the deadline or the end of journalctl."""
        command = _journalctl("--boot", "--follow", "--no-tail", unit=unit)
        try:
            with self._context.shell().popen(command) as process:
                buffer = b""
                while data := self._read(process, deadline):
                    *whole, buffer = (buffer + data).split(b"\n")
                    yield from map(_entry, whole)
                process.poll()  # raises where the node has ended
        except NotRunningError:
            if not self._context.may_answer_again():
                raise

    def _read(self, process: RemoteProcess, deadline: Deadline) -> bytes:
        """What comes next; nothing at the deadline or the end."""
        # Both streams: a full stderr would stop journalctl.
        streams = {process.stdout.fileno(): process.stdout, process.stderr.fileno(): process.stderr}
        while streams:
            self._context.run_callbacks()
            step = 1.0 if self._context.callbacks else None
            ready = select.select(list(streams), [], [], _left(deadline, step))[0]
            if not ready and deadline.expired:
                return b""
            for fd in ready:
                data = streams[fd].read(_CHUNK)
                if fd == process.stdout.fileno():
                    return data or b""
                if not data:
                    del streams[fd]
                else:
                    self._context.log.info("journalctl: %s", data.decode(errors="replace").rstrip("\n"))
        return b""


def _left(deadline: Deadline, most: float | None) -> float | None:
    """Seconds to wait at once: until the deadline, at most `most`."""
    remaining = deadline.remaining()
    limits = [max(0.0, each) for each in (remaining, most) if each is not None]
    return min(limits, default=None)


def _journalctl(
    *options: str,
    unit: str | None,
    since: str | datetime | timedelta | None = None,
    lines: int | None = None,
) -> str:
    words = [
        "journalctl",
        "--quiet",
        "--no-pager",
        "--output=json",
        f"--output-fields={_FIELDS}",
        "--all",
        *options,
    ]
    words += [f"--unit={unit}"] if unit is not None else []
    words += [f"--since={_moment(since)}"] if since is not None else []
    words += [f"--lines={lines}"] if lines is not None else []
    return f"exec {shlex.join(words)}"


def _moment(since: str | datetime | timedelta) -> str:
    """A moment as systemd.time(7) takes it; a span of time is one that ends now."""
    if isinstance(since, str):
        return since
    stamp = since.timestamp() if isinstance(since, datetime) else time.time() - since.total_seconds()
    return f"@{stamp:.6f}"


def _entry(line: bytes | str) -> Entry:
    fields: dict[str, Any] = json.loads(line)
    name = _text(fields.get("SYSLOG_IDENTIFIER") or fields.get("_COMM") or "unknown")
    pid = _text(fields.get("SYSLOG_PID") or fields.get("_PID") or "")
    return Entry(
        moment=int(fields.get("__REALTIME_TIMESTAMP", 0)),
        source=f"{name}[{pid}]" if pid else name,
        message=_text(fields.get("MESSAGE")),
    )


def _text(value: Any) -> str:
    """A field's value: text, numbers of bytes where it is not printable UTF-8, or a list where it comes twice."""
    if isinstance(value, list):
        if all(isinstance(each, int) for each in value):
            return bytes(value).decode(errors="replace")
        return "\n".join(map(_text, value))
    return "" if value is None else str(value)
