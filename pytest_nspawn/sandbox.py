"""The sandbox seen from the test process: start it, ask it, hear its events, end it.

What runs in it is in `inside/`; it ends when this process does, however that happens. One thread reads what it says.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import select
import socket
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_nspawn import cgroups, host, process, wire
from pytest_nspawn.errors import HostError, SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_nspawn.host import Mode

_START_LIMIT = 30.0
"""Seconds for the sandbox to come up; it takes about 0.05."""

_DYING = 2.0
"""Seconds for killed processes to be gone."""

_FIRST_ID, _LAST_ID, _IDS = 0x00080000, 0x6FFF0000, 0x10000
"""Where user namespaces of containers live (systemd's UIDS-GIDS document), and how many ids each has."""

_NAME = re.compile(r"pytest-nspawn-(\d+)-(\d+)-\d+")

_living: weakref.WeakSet[Sandbox] = weakref.WeakSet()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer; the descriptors are the caller's to close."""

    fields: wire.Message
    fds: list[int]


class Sandbox:
    """Namespaces, control groups and an init of its own for all nodes of this process."""

    def __init__(self, mode: Mode) -> None:
        """Start it. Raises HostError where the machine lacks something, SandboxError where starting fails."""
        self.mode = mode
        self.confined = mode == "user" or host.in_user_namespace()
        self._replies: dict[int, Future[Reply]] = {}
        self._handlers: dict[int, Callable[[wire.Message, list[int]], None]] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._shifts = itertools.count(os.getpid() * 64)
        self._up: Future[wire.Message] = Future()
        self._gone: str | None = None
        self._failure: str | None = None
        self._closing = False
        home = cgroups.cgroup_home()
        if home.path is not None:
            sweep([home.path, *home.v1.values()])
        self._cgroups = [] if home.path is None else [home.path, *home.v1.values()]
        self.name = f"pytest-nspawn-{os.getpid()}-{started(os.getpid())}-{next(_runs)}"
        self._control, theirs = socket.socketpair()
        life_read, self._life = os.pipe()
        config = {
            "name": self.name,
            "owner": os.getpid(),
            "mode": mode,
            "confined": self.confined,
            "cgroup": str(home.path) if home.path is not None else None,
            "v1": {name: str(path) for name, path in home.v1.items()},
            "maps": _maps() if mode == "user" else {},
            "paths": [path for path in sys.path if path],
            "life": life_read,
            "control": theirs.fileno(),
        }
        with theirs:
            self._warden = process.spawn_module(
                "pytest_nspawn.inside.warden",
                json.dumps(config),
                prefix=home.scope_prefix,
                pass_fds=[life_read, theirs.fileno()],
            )
        os.close(life_read)
        _living.add(self)
        self._reader = threading.Thread(target=self._read, name="pytest-nspawn sandbox", daemon=True)
        self._reader.start()
        self.limits: Mapping[str, str] = self._wait_until_up()

    def _wait_until_up(self) -> Mapping[str, str]:
        try:
            limits: Mapping[str, str] = self._up.result(_START_LIMIT)["limits"]
        except FutureTimeoutError:
            self.stop()
            raise SandboxError(
                operation="start the sandbox", problem=f"it said nothing within {_START_LIMIT:g} s"
            ) from None
        except SandboxError as error:
            self.stop()
            missing = [check for check in host.checks(self.mode) if check.required and not check.ok]
            if missing:
                raise HostError(problem=missing[0].problem, mend=missing[0].mend) from error
            raise
        return limits

    def request(self, op: str, fds: Sequence[int] = (), **fields: Any) -> Future[Reply]:
        """Ask for something; the answer, or a SandboxError, comes as a future."""
        future: Future[Reply] = Future()
        with self._lock:
            number = next(self._numbers)
            self._replies[number] = future
            try:
                if self._gone is not None:
                    raise BrokenPipeError(self._gone)
                wire.send(self._control, {"op": op, "id": number, **fields}, fds)
            except OSError as error:
                del self._replies[number]
                future.set_exception(SandboxError(operation=op, problem=self._gone or str(error)))
        return future

    def call(self, op: str, fds: Sequence[int] = (), **fields: Any) -> Reply:
        """Ask for something and wait for the answer. Raises SandboxError."""
        return self.request(op, fds, **fields).result()

    def number(self, handler: Callable[[wire.Message, list[int]], None] | None = None) -> int:
        """A number of its own for a node or a cluster; `handler` gets the node's events, on the reader's thread."""
        with self._lock:
            number = next(self._numbers)
            if handler is not None:
                self._handlers[number] = handler
        return number

    def forget(self, number: int) -> None:
        """No more events of a node that is removed."""
        self._handlers.pop(number, None)

    def shift(self) -> int:
        """The first user id of 65536 for a node's user namespace."""
        return _FIRST_ID + next(self._shifts) * _IDS % (_LAST_ID - _FIRST_ID)

    def can_shift(self, path: str) -> bool:
        """Whether the kernel can show the file system of `path` with shifted owners (mount_setattr(2))."""
        if self.confined:
            return False
        try:
            self.call("can_shift", path=path, base=_LAST_ID)
        except SandboxError:
            return False
        return True

    def stop(self) -> None:
        """End it and wait until nothing of it is left. Idempotent."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._close_life()
        self._warden.wait()
        if self._reader is not threading.current_thread():
            self._reader.join()
        self._control.close()
        if self._cgroups:
            # Nothing is left, but where the warden was killed.
            for home in self._cgroups:
                _remove(home / self.name)

    def _close_life(self) -> None:
        fd, self._life = self._life, -1
        if fd >= 0:
            os.close(fd)

    def leave_to_parent(self) -> None:
        """In a fork of the test process: let go of what would keep the sandbox alive after the parent's end."""
        self._close_life()
        self._control.close()

    def _read(self) -> None:
        problem = None
        while True:
            try:
                received = wire.receive(self._control)
            except OSError as error:
                problem = str(error)
                break
            if received is None:
                break
            self._dispatch(*received)
        self._end("it was stopped" if self._closing else self._failure or problem or "it has ended")

    def _dispatch(self, message: wire.Message, fds: list[int]) -> None:
        if "reply" in message:
            with self._lock:
                future = self._replies.pop(message["reply"])
            if message.get("problem"):
                wire.close_all(fds)
                future.set_exception(
                    SandboxError(
                        operation=message["operation"],
                        problem=message["problem"],
                        errno=message.get("errno"),
                    )
                )
            else:
                future.set_result(Reply(fields=message, fds=fds))
        elif message["event"] == "up":
            self._up.set_result(message)
        elif message["event"] == "failed":
            self._failure = message["problem"]
            if not self._up.done():
                self._up.set_exception(SandboxError(operation=message["operation"], problem=self._failure))
        elif (handler := self._handlers.get(message["node"])) is not None:
            handler(message, fds)
        else:
            wire.close_all(fds)

    def _end(self, problem: str) -> None:
        with self._lock:
            self._gone = problem
            replies, self._replies = self._replies, {}
            handlers = list(self._handlers.values())
        for future in replies.values():
            future.set_exception(SandboxError(operation="answer", problem=problem))
        if not self._up.done():
            self._up.set_exception(SandboxError(operation="start the sandbox", problem=problem))
        for handler in handlers:
            handler({"event": "gone", "problem": problem}, [])


_runs = itertools.count(1)


def started(pid: int) -> int | None:
    """When a process started, in ticks since the machine's boot (proc_pid_stat(5)); None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def sweep(homes: Sequence[Path]) -> None:
    """Remove the control groups of runs whose test process and warden were both killed."""
    for home in homes:
        for path in home.glob("pytest-nspawn-*"):
            name = _NAME.fullmatch(path.name)
            if name is not None and started(int(name[1])) != int(name[2]):
                _remove(path)


def _remove(path: Path) -> None:
    """Kill what is in a control group and remove it; its own warden, or another run's sweep, may be doing the same."""
    try:
        if (path / "cgroup.kill").exists():
            (path / "cgroup.kill").write_text("1", encoding="ascii")
            _wait_until_empty(path / "cgroup.events")
        for directory, _directories, _files in os.walk(path, topdown=False):
            # Still busy: the next run finds it empty.
            with contextlib.suppress(OSError):
                os.rmdir(directory)
    except OSError as error:
        # Removed before a file of it was opened, or after.
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def _wait_until_empty(events: Path) -> None:
    """Wait until the last process of a control group is gone; the kernel tells (cgroup-v2, cgroup.events)."""
    deadline = time.monotonic() + _DYING
    with events.open("rb", buffering=0) as file:
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        while b"populated 1" in os.pread(file.fileno(), 256, 0) and time.monotonic() < deadline:
            poll.poll(100)


def _maps() -> dict[str, list[list[int]]]:
    """The ids of a sandbox of an ordinary user: root in it is the user, the rest are subordinate ids (subuid(5))."""
    return {
        "newuidmap": [[0, os.getuid(), 1], *host.subordinate_ids("/etc/subuid")],
        "newgidmap": [[0, os.getgid(), 1], *host.subordinate_ids("/etc/subgid")],
    }


def _leave_to_parent() -> None:
    for sandbox in _living:
        sandbox.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
