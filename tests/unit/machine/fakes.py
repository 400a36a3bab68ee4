"""A node without a container: this machine stands in, through the real agent and the real shell."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_nspawn.bus import BusError, UnitState
from pytest_nspawn.errors import NotRunningError, TimeoutExceeded
from pytest_nspawn.shell import Shell
from pytest_nspawn.timing import Deadline

_AGENT = """
import os, socket, sys
from pytest_nspawn.inside.agent import Agent
control = socket.socket(fileno=int(sys.argv[1]))
control.set_inheritable(False)
os.chdir("/")
Agent(control, os.open("/proc/self/status", os.O_RDONLY)).serve()
"""


class FakeBus:
    """Units whose states a test sets, from any thread."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.units: dict[str, UnitState] = {}
        self.properties: dict[tuple[str, str], str] = {}
        self.results: dict[str, str] = {}
        self.jobs: list[str] = []
        self.gone = False
        self._changed = threading.Condition()

    def put(self, unit: str, active: str, sub: str = "", *, job: int = 0, pending: int = 0) -> None:
        with self._changed:
            self.units[unit] = UnitState(
                load_state="loaded",
                active_state=active,
                sub_state=sub or active,
                job=job,
                unit=unit,
                pending=pending,
            )
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self.gone = True
            self._changed.notify_all()

    def unit_state(self, unit: str) -> UnitState:
        if self.gone:
            raise NotRunningError(node=self.node)
        missing = UnitState(
            load_state="not-found", active_state="inactive", sub_state="dead", job=0, unit=unit
        )
        return self.units.get(unit, missing)

    def get_property(self, unit: str, name: str) -> str:
        return self.properties[unit, name]

    def list_units(self, *, states: Sequence[str] = (), patterns: Sequence[str] = ()) -> list[UnitState]:
        return [
            state
            for name, state in self.units.items()
            if not patterns or any(fnmatch.fnmatch(name, each) for each in patterns)
        ]

    def start_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        return self._job("start", unit)

    def stop_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        return self._job("stop", unit)

    def restart_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        return self._job("restart", unit)

    def reload_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        return self._job("reload", unit)

    def wait_for_unit(self, unit: str, until: Callable[[UnitState], bool], deadline: Deadline) -> UnitState:
        with self._changed:
            while not until(state := self.unit_state(unit)):
                if deadline.expired:
                    raise TimeoutExceeded(what=unit, elapsed=deadline.elapsed, limit=deadline.limit or 0.0)
                self._changed.wait(deadline.remaining())
            return state

    def _job(self, verb: str, unit: str) -> str:
        self.jobs.append(f"{verb} {unit}")
        result = self.results.get(unit, "done")
        if result == "refused":
            raise BusError(node=self.node, problem=f"Unit {unit} not found.", dbus_name="NoSuchUnit")
        return result


class FakeConsole:
    """A console on which a test prints."""

    def __init__(self) -> None:
        self.text = ""
        self.typed = ""

    def log(self) -> str:
        return self.text

    def wait_for(self, regex: str, deadline: Deadline) -> str:
        while (found := re.search(regex, self.text)) is None:
            if deadline.expired:
                raise TimeoutExceeded(what=regex, elapsed=deadline.elapsed, limit=deadline.limit or 0.0)
            threading.Event().wait(0.01)
        return found[0]

    def tail(self, limit: int = 1 << 16) -> str:
        return self.text[-limit:]

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        raise NotImplementedError

    def send(self, text: str) -> None:
        self.typed += text

    def interact(self) -> None:
        raise NotImplementedError


class Boot:
    """One boot: an agent of its own, a systemd of its own."""

    def __init__(self, node: str) -> None:
        self._node = node
        self.bus = FakeBus(node)
        self.begin_agent()

    def begin_agent(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.agent = subprocess.Popen(
                [sys.executable, "-c", _AGENT, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.shell = Shell(self._node, ours)

    def end(self) -> None:
        self.end_agent()
        self.bus.end()

    def end_agent(self) -> None:
        # As in a node whose power is cut: nothing that runs there is left.
        for pid in [self.agent.pid, *_below(self.agent.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.agent.wait()
        self.shell.close()


class LocalContainer:
    """This machine as a node that can be started, stopped, rebooted and cut off."""

    def __init__(self, name: str = "server") -> None:
        self.name = name
        self.boots = 0
        self.console = FakeConsole()
        self.calls: list[str] = []
        self.booting = False
        self._boot: Boot | None = None
        self._changed = threading.Condition()

    @property
    def running(self) -> bool:
        return self._boot is not None or self.booting

    @property
    def ready(self) -> bool:
        return self._boot is not None

    @property
    def leader_pid(self) -> int:
        return self._now().agent.pid

    @property
    def fake_bus(self) -> FakeBus:
        return self._now().bus

    def start(self, units: Mapping[str, str] | None = None) -> None:
        self.calls.append("start")
        if self._boot is None:
            with self._changed:
                self.boots += 1
                self._boot = Boot(self.name)
                for unit, state in (units or {}).items():
                    self._boot.bus.put(unit, state)
                self.booting = False
                self._changed.notify_all()

    def wait_ready(self, timeout: float | None = None) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self.ready or not self.booting, 30):
                raise AssertionError("the node hangs in its boot")
        self._now()

    def wait_stopped(self, timeout: float | None = None) -> int:
        with self._changed:
            if not self._changed.wait_for(lambda: not self.running, timeout):
                raise TimeoutError(f"{self.name} still runs")
        return 0

    def power_off(self, timeout: float | None = None) -> None:
        self.calls.append("power_off")
        self._end()

    def kill(self) -> None:
        self.calls.append("kill")
        self._end()

    def reboot(self, timeout: float | None = None) -> None:
        self.calls.append("reboot")
        self.begin_reboot()
        self.start()

    def freeze(self, frozen: bool) -> None:
        self.calls.append("freeze" if frozen else "thaw")

    def impair(self, ifnames: Sequence[str], **how: object) -> None:
        self.calls.append(f"impair {' '.join(ifnames)} {how}")

    def kill_agent(self) -> None:
        """Do to the agent what a command in the node may do; there is another one soon."""
        boot = self._now()
        boot.end_agent()
        boot.begin_agent()

    def begin_reboot(self) -> None:
        """Go down to come up again when `start` is called."""
        self.booting = True
        self._end()

    def shell(self) -> Shell:
        self.wait_ready()
        return self._now().shell

    def bus(self) -> FakeBus:
        self.wait_ready()
        return self._now().bus

    def _now(self) -> Boot:
        if self._boot is None:
            raise NotRunningError(node=self.name)
        return self._boot

    def _end(self) -> None:
        with self._changed:
            boot, self._boot = self._boot, None
            self._changed.notify_all()
        if boot is not None:
            boot.end()


def _below(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    with contextlib.suppress(FileNotFoundError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return [each for child in map(int, children) for each in (child, *_below(child))]
    return []


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def later(seconds: float, work: Callable[[], object]) -> threading.Timer:
    """Do something in a while."""
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()
    return timer


def is_root() -> bool:
    """Whether the tests run as root."""
    return os.geteuid() == 0
