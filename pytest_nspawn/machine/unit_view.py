"""The units of a node as objects: `machine.units["nginx.service"].active_state`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

from pytest_nspawn.bus import BusError, UnitState, unit_name
from pytest_nspawn.errors import RequestedAssertionFailed
from pytest_nspawn.machine.channels import BusChannel
from pytest_nspawn.machine.context import LIMIT, Context, hidden, seconds_of
from pytest_nspawn.machine.journal import Journal
from pytest_nspawn.timing import Deadline, Seconds

__tracebackhide__ = hidden

_DONE = ("done", "skipped")


class Unit:
    """One unit; every look asks the systemd of the boot that runs."""

    def __init__(self, name: str, context: Context, journal: Journal) -> None:
        self.name = unit_name(name)
        self._context = context
        self._journal = journal

    def __repr__(self) -> str:
        return f"<Unit {self.name!r} of {self._context.node}>"

    @property
    def state(self) -> UnitState:
        """Load, active and sub state, read at one moment."""
        return self._context.bus().unit_state(self.name)

    @property
    def load_state(self) -> str:
        """`loaded`, `not-found`, `masked`, ..."""
        return self.state.load_state

    @property
    def active_state(self) -> str:
        """`active`, `inactive`, `failed`, `activating`, ..."""
        return self.state.active_state

    @property
    def sub_state(self) -> str:
        """`running`, `exited`, `dead`, ..."""
        return self.state.sub_state

    def start(self, *, timeout: Seconds = LIMIT) -> None:
        """Start it and wait for that. Raises RequestedAssertionFailed where the job does not end well."""
        self._job("start", lambda bus, deadline: bus.start_unit(self.name, deadline=deadline), timeout)

    def stop(self, *, timeout: Seconds = LIMIT) -> None:
        """Stop it likewise."""
        self._job("stop", lambda bus, deadline: bus.stop_unit(self.name, deadline=deadline), timeout)

    def restart(self, *, timeout: Seconds = LIMIT) -> None:
        """Restart it likewise; one that does not run is started."""
        self._job("restart", lambda bus, deadline: bus.restart_unit(self.name, deadline=deadline), timeout)

    def reload(self, *, timeout: Seconds = LIMIT) -> None:
        """Let it reload its configuration likewise."""
        self._job("reload", lambda bus, deadline: bus.reload_unit(self.name, deadline=deadline), timeout)

    def journal(self, since: str | datetime | timedelta | None = None, grep: str | None = None) -> str:
        """Its part of the journal."""
        return self._journal.read(unit=self.name, since=since, grep=grep)

    def _job(self, verb: str, send: Callable[[BusChannel, Deadline], str], timeout: Seconds) -> None:
        with self._context.waiting(f"{verb} {self.name}"):
            try:
                result = send(self._context.bus(), Deadline(seconds_of(timeout)))
            except BusError as error:
                message = f"cannot {verb} {self.name}: {error.problem}"
                raise RequestedAssertionFailed(
                    message=message, node=self._context.node, cause=error
                ) from None
            if result not in _DONE:
                message = f"the job to {verb} {self.name} ended with {result!r}; the unit is {self.state}"
                if said := self._journal.tail(self.name):
                    message += f"\njournal:\n{said}"
                raise RequestedAssertionFailed(message=message, node=self._context.node) from None


class Units(Mapping[str, Unit]):
    """The loaded units by name; any other name gives its unit too, which is `not-found` or `inactive`."""

    def __init__(self, context: Context, journal: Journal) -> None:
        self._context = context
        self._journal = journal

    def __getitem__(self, name: str) -> Unit:
        return Unit(name, self._context, self._journal)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and unit_name(name) in self._names()

    def __repr__(self) -> str:
        return f"<Units of {self._context.node}>"

    def _names(self) -> list[str]:
        states = self._context.bus().list_units()
        return sorted(state.unit for state in states if state.load_state != "not-found")
