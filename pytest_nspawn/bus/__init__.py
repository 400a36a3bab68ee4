"""systemd in a node over its D-Bus: states of units and their changes.

The way there is /run/systemd/private: PID 1 itself, peer to peer, no D-Bus daemon in the node, no Hello. Its signals come
unasked. A connection is dropped when the node's systemd re-executes itself; it is made anew and waits go on.
org.freedesktop.systemd1(5); the D-Bus specification, "Authentication Protocol".
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_nspawn.bus.connection import (
    NO_REPLY,
    BusError,
    Connection,
    DroppedError,
    Events,
    expired,
    method_call,
    parse_body,
)
from pytest_nspawn.bus.text import format_property, unit_name, unit_path
from pytest_nspawn.errors import NotRunningError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_nspawn.timing import Deadline

_Answer = TypeVar("_Answer")

__all__ = ["PRIVATE_SOCKET", "Bus", "BusError", "UnitState", "unit_name"]

PRIVATE_SOCKET = "/run/systemd/private"
"""Where PID 1 listens; the connecting process must be in the node's PID namespace."""

RECONNECT_LIMIT = 10.0
"""Seconds in which systemd must listen again after a dropped connection, in a node that still runs."""

_MANAGER_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_JOB = "org.freedesktop.systemd1.Job"
_INVALID = "org.freedesktop.DBus.Error.InvalidArgs"
_PROPERTIES = "org.freedesktop.DBus.Properties"

# Signals after which any unit's state may be another one.
_JOB_REMOVED = b"JobRemoved\0"
_RELOADED = (b"Reloading\0", b"UnitFilesChanged\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitState:
    """A unit's state, read at one moment.

    `unit` is its primary name, `job` the number of its queued job (0: none), `pending` the number of jobs that the whole
    manager had queued just before: with both 0 nothing is under way that would change the state.
    """

    load_state: str
    active_state: str
    sub_state: str
    job: int
    unit: str = ""
    pending: int = 0

    def __str__(self) -> str:
        load = f", {self.load_state}" if self.load_state != "loaded" else ""
        job = f", job {self.job}" if self.job else ""
        return f"{self.active_state} ({self.sub_state}{load}{job})"


class Bus:
    """The systemd of one boot; methods may be called from several threads at once.

    `connect` gives a stream socket to PRIVATE_SOCKET, made inside the node, and raises NotRunningError where the node is
    gone. Every method raises NotRunningError then, and BusError where systemd refuses.
    """

    def __init__(self, connect: Callable[[], socket.socket], node: str) -> None:
        self.node = node
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._closing = threading.Event()
        self._interfaces: dict[tuple[str, str], str] = {}

    def __repr__(self) -> str:
        return f"<Bus of {self.node}>"

    def close(self) -> None:
        """Close the connection; whoever waits on it gets NotRunningError."""
        self._closing.set()
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def unit_state(self, unit: str) -> UnitState:
        """A unit's state; one that does not exist is `not-found` and `inactive`."""
        return self._request(lambda connection: _read_state(connection, unit_name(unit), None))

    def get_property(self, unit: str, name: str) -> str:
        """A unit's property as `systemctl show` prints it.

        Raises LookupError where only systemctl can tell: an unknown property, a type that it prints in its own way.
        """
        full_name = unit_name(unit)
        suffix = full_name.rpartition(".")[2]
        path = unit_path(full_name)
        known = self._interfaces.get((suffix, name))
        for interface in (known,) if known else ("Unit", suffix.capitalize()):
            message = _get(path, f"org.freedesktop.systemd1.{interface}", name)
            try:
                ((kind, value),) = self._call(message)[0]
            except BusError as error:
                if error.dbus_name == NO_REPLY:
                    raise
                continue
            self._interfaces[suffix, name] = interface
            return format_property(name, kind, value)
        raise LookupError(f"{unit} has no property {name}")

    def list_units(self, *, states: Sequence[str] = (), patterns: Sequence[str] = ()) -> list[UnitState]:
        """The loaded units in one of the states (active, load or sub states) whose name matches a pattern (glob(7))."""
        message = _manager("ListUnitsByPatterns", "asas", list(states), list(patterns))
        ((_, pending),), (rows,) = self._call(_pending_jobs(), message)
        return [_unit_state(row, pending) for row in rows]

    def failed_units(self) -> list[str]:
        """The names of the units that failed, sorted."""
        return sorted(state.unit for state in self.list_units(states=("failed",)))

    def start_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        """Start a unit and wait for the job; its result is `done`, `failed`, `canceled`, `timeout`, `dependency`, ..."""
        return self._run_job("StartUnit", unit, mode, deadline)

    def stop_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        """Stop a unit likewise. Raises BusError where it is not loaded."""
        return self._run_job("StopUnit", unit, mode, deadline)

    def restart_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        """Restart a unit likewise; one that does not run is started."""
        return self._run_job("RestartUnit", unit, mode, deadline)

    def reload_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        """Let a unit reload its configuration likewise. Raises BusError where it cannot."""
        return self._run_job("ReloadUnit", unit, mode, deadline)

    def wait_for_unit(self, unit: str, until: Callable[[UnitState], bool], deadline: Deadline) -> UnitState:
        """Wait until a unit's state is as wanted; `until` is asked after every change, and may raise to give up.

        Raises TimeoutExceeded with the last state.
        """
        name = unit_name(unit)
        while True:
            connection = self._connected(deadline)
            # The filter comes first, then the look: no change can fall between them.
            needles = (*_names_of(name), _JOB_REMOVED, *_RELOADED)
            with contextlib.suppress(DroppedError), connection.watch(*needles) as events:
                state = _read_followed(connection, events, name, deadline)
                while not until(state):
                    if not events.wait(deadline):
                        raise expired(deadline, f"waiting for unit {name}", self.node, state)
                    state = _look_again(connection, events, name, state, deadline)
                return state

    def _run_job(self, method: str, unit: str, mode: str, deadline: Deadline | None) -> str:
        name, job = unit_name(unit), ""
        what = f"{method.removesuffix('Unit').lower()} {name}"
        # The second and third round are for a systemd that re-executes itself meanwhile: jobs survive that.
        for _round in range(3):
            connection = self._connected(deadline)
            with contextlib.suppress(DroppedError), connection.watch(_JOB_REMOVED) as events:
                if not job:
                    ((job,),) = connection.call(_manager(method, "ss", name, mode), deadline=deadline)
                elif not _answers(connection, _get(job, _JOB, "State"), deadline):
                    # It ended while nobody listened: the unit tells how.
                    state = _read_state(connection, name, deadline).active_state
                    return "done" if state == ("inactive" if method == "StopUnit" else "active") else "failed"
                if result := _job_result(events, job, deadline):
                    return result
                raise expired(deadline, f"waiting for the job: {what}", self.node)
        raise NotRunningError(node=self.node, problem=f"its systemd went away again and again during {what}")

    def _call(self, *messages: Any) -> list[Any]:
        return self._request(lambda connection: connection.call(*messages))

    def _request(self, ask: Callable[[Connection], _Answer]) -> _Answer:
        """Ask once, and once more on a new connection where the first was dropped."""
        for _attempt in range(2):
            with contextlib.suppress(DroppedError):
                return ask(self._connected(None))
        raise NotRunningError(node=self.node, problem="its systemd closed the connection")

    def _connected(self, deadline: Deadline | None) -> Connection:
        with self._lock:
            if self._connection is None or self._connection.dropped:
                self._connection = self._reconnect(deadline)
            return self._connection

    def _reconnect(self, deadline: Deadline | None) -> Connection:
        """Connect; where systemd does not listen (just now: it re-executes itself), again in a moment."""
        begin, pause = time.monotonic(), 0.002
        while not self._closing.is_set():
            try:
                return Connection(self._connect(), self.node)
            except (ConnectionError, FileNotFoundError, BlockingIOError) as error:
                if time.monotonic() - begin > RECONNECT_LIMIT:
                    raise NotRunningError(
                        node=self.node, problem=f"its systemd does not listen on {PRIVATE_SOCKET}"
                    ) from error
                if deadline is not None and deadline.expired:
                    what = f"waiting for systemd to listen on {PRIVATE_SOCKET}"
                    raise expired(deadline, what, self.node, error) from None
            # Nothing tells when PID 1 binds its socket again.
            self._closing.wait(pause)
            pause = min(pause * 2, 0.1)
        raise NotRunningError(node=self.node, problem="the connection to its systemd is closed")


def _manager(method: str, signature: str, *body: object) -> Any:
    return method_call(_MANAGER_PATH, _MANAGER, method, signature, *body)


def _get(path: str, interface: str, name: str) -> Any:
    return method_call(path, _PROPERTIES, "Get", "ss", interface, name)


def _pending_jobs() -> Any:
    return _get(_MANAGER_PATH, _MANAGER, "NJobs")


def _names_of(unit: str) -> tuple[bytes, bytes]:
    """What occurs in every signal about a unit: its path in the header, or its name in the body."""
    return unit_path(unit).encode() + b"\0", unit.encode() + b"\0"


def _read_state(connection: Connection, name: str, deadline: Deadline | None) -> UnitState:
    # The number of jobs first: none, and then an inactive unit without a job, is a unit that nothing will start.
    look = _manager("ListUnitsByNames", "as", [name])
    ((_, pending),), (rows,) = connection.call(_pending_jobs(), look, deadline=deadline)
    if not rows:
        problem = f"{name!r} is no name of a unit"
        raise BusError(node=connection.node, problem=problem, dbus_name=_INVALID)
    return _unit_state(rows[0], pending)


def _unit_state(row: Any, pending: int) -> UnitState:
    unit, _description, load, active, sub, _following, _path, job, *_ = row
    return UnitState(unit=unit, load_state=load, active_state=active, sub_state=sub, job=job, pending=pending)


def _read_followed(connection: Connection, events: Events, name: str, deadline: Deadline) -> UnitState:
    """A unit's state. Where the name turns out to be an alias, the unit's own name is followed: signals bear that."""
    state = _read_state(connection, name, deadline)
    while events.add(*_names_of(state.unit)):
        state = _read_state(connection, name, deadline)
    return state


def _look_again(
    connection: Connection, events: Events, name: str, state: UnitState, deadline: Deadline
) -> UnitState:
    """A unit's state after signals.

    To look at a unit that is not in memory loads it, which sends UnitNew and UnitRemoved in turn: so it is looked at only
    where it is in memory by itself, or where unit files were read anew.
    """
    reloaded = any(needle in raw for raw in events.get_all() for needle in _RELOADED)
    if reloaded or _answers(connection, _manager("GetUnit", "s", state.unit), deadline):
        return _read_followed(connection, events, name, deadline)
    ((_, pending),) = connection.call(_pending_jobs(), deadline=deadline)[0]
    return replace(state, active_state="inactive", sub_state="dead", job=0, pending=pending)


def _answers(connection: Connection, message: Any, deadline: Deadline | None) -> bool:
    """Whether what a call is about exists."""
    try:
        connection.call(message, deadline=deadline)
    except BusError as error:
        if error.dbus_name == NO_REPLY:
            raise
        return False
    return True


def _job_result(events: Events, job: str, deadline: Deadline | None) -> str:
    """How a job ended; empty where the deadline came first."""
    while events.wait(deadline):
        for raw in events.get_all():
            _number, path, _unit, result = parse_body(raw)
            if path == job:
                return str(result)
    return ""
