"""The driver of a testScript: its globals, and what watches over it while it runs."""

from __future__ import annotations

import contextlib
import os
import pdb  # noqa: T100 (what debug.breakpoint() opens outside pytest)
import sys
import unittest
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pytest_nspawn import naming, timing
from pytest_nspawn.driver.limit import Limit
from pytest_nspawn.driver.log import ScriptLog
from pytest_nspawn.driver.polling import Condition, Poll
from pytest_nspawn.driver.script import Compile, Script
from pytest_nspawn.errors import UnsupportedError
from pytest_nspawn.machine import Machine
from pytest_nspawn.machine.context import LIMIT, hidden, seconds_of
from pytest_nspawn.model import Node, Topology
from pytest_nspawn.timing import Seconds

__tracebackhide__ = hidden


SLOW_JOB = 10.0
"""Seconds after which a node takes commands though a unit of it still starts.

Scripts are written for nodes that take them earlier yet: as soon as systemd starts services.
"""


class Nodes(Protocol):
    """The nodes that a script drives: a `Cluster`."""

    @property
    def machines(self) -> list[Machine]:
        """All of them, by name."""

    @property
    def topology(self) -> Topology:
        """What they were made from."""

    def start_all(self) -> None:
        """Begin to boot them."""

    def join_all(self) -> None:
        """Wait until all have shut down."""


@dataclass(frozen=True, slots=True)
class Vlan:
    """A network of the test, by its number."""

    nr: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Debug:
    """`debug.breakpoint()` opens the debugger at the script's own line; the nodes run on meanwhile."""

    breakpoint: Callable[[], Any] = pdb.set_trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the script runs in: pytest, or a terminal."""

    subtest: Callable[[str], AbstractContextManager[object]] = contextlib.nullcontext
    debug: Debug = field(default_factory=Debug)
    compile: Compile | None = None
    log: ScriptLog = field(default_factory=ScriptLog)
    boot: Callable[[str, Node], Machine] | None = None
    """Boots one more node; None where none can be added."""


class Driver:
    """Runs one testScript on booted nodes. `timeout` is in seconds; None is no limit."""

    def __init__(
        self,
        nodes: Nodes,
        script: Script | None = None,
        *,
        timeout: float | None = None,
        aliases: Mapping[str, str] | None = None,
        python_path: Sequence[str] = (),
        surroundings: Surroundings | None = None,
    ) -> None:
        """`aliases` are further names of nodes: their host names, where those differ.

        `python_path` is searched for what the script imports, after all else: what this process has loaded stays.
        """
        self.machines: list[Machine] = sorted(nodes.machines, key=lambda machine: machine.name)
        self.vlans = [Vlan(bridge.vlan) for bridge in naming.plan_wiring(nodes.topology).bridges]
        self.vlans.sort(key=lambda vlan: vlan.nr)
        self.polling_conditions: list[Poll] = []
        script = script or Script(text="", filename="<testScript>", lines=())
        self.tests = script.text
        self.global_timeout = timeout
        self._surroundings = surroundings or Surroundings()
        self.log = self.logger = self._surroundings.log
        self.debug = self._surroundings.debug
        self._nodes = nodes
        self._script = script
        self._aliases = dict(aliases or {})
        self._limit = Limit(timeout)
        self._checking = False
        self._consoles: dict[int, Callable[[], None]] = {}
        self._python_path = [path for path in python_path if path not in sys.path]
        sys.path += self._python_path
        for machine in self.machines:
            self._adopt(machine)

    @property
    def out_dir(self) -> Path:
        """Where files of nodes are copied to."""
        return self.machines[0].out_dir if self.machines else Path()

    def start_all(self) -> None:
        """Begin to boot every node, without waiting."""
        with self.log.nested("start all nodes"):
            self._nodes.start_all()

    def join_all(self) -> None:
        """Wait until every node has shut down."""
        with self.log.nested("wait for all nodes to shut down"):
            for machine in self.machines:
                machine.wait_for_shutdown()

    def run_tests(self) -> None:
        """Run the script under its time-out, then let the nodes that run write out what they hold."""
        self.test_script()
        for machine in self.machines:
            if machine.is_up():
                machine.execute("sync")

    def test_script(self) -> None:
        """Run the script. Raises whatever it raises, TimeoutExceeded where it takes too long."""
        __tracebackhide__ = True
        code = self._script.code(self._surroundings.compile)
        with self._limit:
            exec(code, self.test_symbols())  # noqa: S102 (the user's own test)

    def test_symbols(self) -> dict[str, Any]:
        """The globals of a script, anew."""
        symbols: dict[str, Any] = {
            "__name__": "__testScript__",
            "__file__": self._script.filename,
            "start_all": self.start_all,
            "join_all": self.join_all,
            "run_tests": self.run_tests,
            "test_script": self.test_script,
            "create_machine": self.create_machine,
            "subtest": self.subtest,
            "retry": self.retry,
            "polling_condition": self.polling_condition,
            "serial_stdout_on": self.serial_stdout_on,
            "serial_stdout_off": self.serial_stdout_off,
            "t": _tester(),
            "log": self.log,
            "driver": self,
            "os": os,
            "machines": self.machines,
            "machines_qemu": [],
            "machines_nspawn": list(self.machines),
            "vlans": self.vlans,
            "debug": self.debug,
            "Machine": Machine,
            "BaseMachine": Machine,
        }
        symbols |= {naming.identifier(machine.name): machine for machine in self.machines}
        by_name = {machine.name: machine for machine in self.machines}
        for alias, name in self._aliases.items():
            symbols.setdefault(naming.identifier(alias), by_name[name])
        if len(self.machines) == 1:
            symbols.setdefault("machine", self.machines[0])
        symbols |= {f"vlan{vlan.nr}": vlan for vlan in self.vlans}
        return symbols

    def subtest(self, name: str) -> AbstractContextManager[object]:
        """A part of the test that is reported by itself."""
        return _Part(self._surroundings.subtest(name), self.log.subtest(name))

    def retry(self, fn: Callable[[bool], object], timeout_seconds: Seconds = LIMIT) -> None:
        """Call a function until it is true; it is told whether this is the last try. Raises TimeoutExceeded."""

        def attempt(is_last: bool) -> bool:
            self._limit.check()
            self.check_polling_conditions()
            return bool(fn(is_last))

        what = f"retrying {getattr(fn, '__name__', repr(fn))}"
        timing.retry(attempt, timeout=seconds_of(timeout_seconds), what=what, interval=(0.02, 1.0))

    def polling_condition(
        self,
        fun: Condition | None = None,
        *,
        seconds_interval: float = 2.0,
        description: str | None = None,
    ) -> Any:
        """A decorator, with or without arguments: what it gives must hold within its `with`."""

        def make(function: Condition) -> Poll:
            return Poll(self, function, seconds_interval=seconds_interval, description=description)

        return make if fun is None else make(fun)

    def check_polling_conditions(self) -> None:
        """Raise RequestedAssertionFailed where one of those that must hold does not; a look is due now and then only."""
        if self._checking:
            return  # the condition's own commands get here too
        self._checking = True
        try:
            for condition in list(self.polling_conditions):
                condition.maybe_raise()
        finally:
            self._checking = False

    def create_machine(
        self,
        start_command: str | Mapping[str, Any],
        *,
        name: str | None = None,
        keep_machine_state: bool = False,
    ) -> Machine:
        """One more node, on networks of its own: from a system's store path, or from the script that would run its VM.

        Raises UnsupportedError for any other command: QEMU's is one.
        """
        command, name = _start_command(start_command, name)
        system = _system_of(command)
        if system is None or self._surroundings.boot is None:
            raise UnsupportedError(
                node=name,
                method="create_machine",
                reason="a container is not started by a command of QEMU",
                way_out="give a system's store path, or declare the machine among the test's nodes",
            )
        machine = self._surroundings.boot(name, Node(system))
        machine.keep_machine_state = keep_machine_state
        self.machines.append(machine)
        self._adopt(machine)
        return machine

    def serial_stdout_on(self) -> None:
        """Log what nodes print on their consoles."""
        self.log.print_serial_logs(True)

    def serial_stdout_off(self) -> None:
        """Log it no more."""
        self.log.print_serial_logs(False)

    def close(self) -> None:
        """Watch over the nodes no more."""
        for unsubscribe in self._consoles.values():
            unsubscribe()
        self._consoles = {}
        self._limit.end()
        for path in self._python_path:
            sys.path.remove(path)
        self._python_path = []

    def _adopt(self, machine: Machine) -> None:
        machine.callbacks.append(lambda: self._look(machine))

    def _look(self, machine: Machine) -> None:
        """Called before each command to a node and all the while that one runs."""
        self._limit.check()
        if self.log.serial_logs and id(machine) not in self._consoles and machine.is_up():
            name = machine.name
            self._consoles[id(machine)] = machine.watch_console(lambda line: self.log.log_serial(line, name))
        self.check_polling_conditions()


class _Part:
    """A subtest, logged. No generator: its frames would be the first of a failure's traceback."""

    def __init__(self, report: AbstractContextManager[object], log: AbstractContextManager[object]) -> None:
        self._report = report
        self._log = log

    def __enter__(self) -> None:
        self._report.__enter__()
        self._log.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            self._log.__exit__(kind, error, trace)
        finally:
            if error is not None:
                error.__traceback__ = trace
        return self._report.__exit__(kind, error, trace)


def _tester() -> unittest.TestCase:
    tester = unittest.TestCase()
    tester.maxDiff = None
    return tester


def _start_command(given: str | Mapping[str, Any], name: str | None) -> tuple[str, str]:
    """The command and the name; older scripts give both in a mapping."""
    if isinstance(given, str):
        return given, name or "machine"
    command = given.get("startCommand") or given.get("start_command") or ""
    return str(command), name or str(given.get("name") or "machine")


def _system_of(command: str) -> str | None:
    """The system that a command starts: a store path itself, or what lies beside a VM's `bin/run-NAME-vm`."""
    words = command.split()
    if len(words) != 1:
        return None
    path = Path(words[0])
    for candidate in (path, path.parent.parent / "system"):
        system = os.path.realpath(candidate)
        if system.startswith("/nix/store/") and os.path.exists(os.path.join(system, "init")):
            return system
    return None
