"""Units of a node, with the NixOS test driver's verbs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from pytest_nspawn.bus import UnitState
from pytest_nspawn.errors import RequestedAssertionFailed, TimeoutExceeded
from pytest_nspawn.machine.commands import Commands
from pytest_nspawn.machine.context import LIMIT, WATCHED, Context, hidden, seconds_of
from pytest_nspawn.machine.journal import Journal
from pytest_nspawn.timing import Deadline, Seconds

__tracebackhide__ = hidden

_ASSIGNMENT = re.compile(r"([^=\n]+)=(.*)")


class UnitVerbs:
    """What the driver does with units: of the system over D-Bus, of a user through `systemctl --user`."""

    def __init__(self, context: Context, commands: Commands, journal: Journal) -> None:
        self._context = context
        self._commands = commands
        self._journal = journal

    def systemctl(self, q: str, user: str | None, *, polled: bool = False) -> tuple[int, str]:
        """Exit code and stdout of `systemctl`, of a user's own systemd where one is named."""
        command = f"systemctl {q}"
        if user is not None:
            inner = f'XDG_RUNTIME_DIR="/run/user/$(id -u)" systemctl --user {q}'
            command = f"su -l {shlex.quote(user)} --shell /bin/sh -c {shlex.quote(inner)}"
        result = self._commands.run(command, timeout=seconds_of(LIMIT), polled=polled)
        return result.exit_code, result.stdout

    def info(self, unit: str, user: str | None) -> dict[str, str]:
        """All properties, as `systemctl show` prints them."""
        status, text = self.systemctl(f"--no-pager show {shlex.quote(unit)}", user)
        if status != 0:
            raise self._failed(
                f"retrieving systemctl info for unit {_named(unit, user)} failed with exit code {status}"
            )
        return _assignments(text)

    def prop(self, unit: str, name: str, user: str | None, *, polled: bool = False) -> str:
        """One property, as `systemctl show` prints it."""
        if user is None:
            try:
                return self._context.bus().get_property(unit, name)
            except LookupError:
                pass  # only systemctl knows how to print this one
        request = f"--no-pager show {shlex.quote(unit)} --property={shlex.quote(name)}"
        status, text = self.systemctl(request, user, polled=polled)
        what = f"retrieving systemctl property {name!r} for unit {_named(unit, user)}"
        if status != 0:
            raise self._failed(f"{what} failed with exit code {status}")
        values = _assignments(text)
        if list(values) != [name]:
            raise self._failed(f"{what} produced invalid output: {text!r}")
        return values[name]

    def require_state(self, unit: str, wanted: str) -> None:
        """Raise RequestedAssertionFailed where a unit is in another active state."""
        state = self._context.bus().unit_state(unit)
        if state.active_state != wanted:
            said = (
                f"expected unit {unit!r} to be in state {wanted!r}, but it is in state {state.active_state!r}"
            )
            raise self._failed(f"{said}: {state}{self._said(unit)}")

    def wait(self, unit: str, user: str | None, timeout: Seconds | None) -> None:
        """Wait until a unit is active; raise RequestedAssertionFailed as soon as it cannot become so any more."""
        if user is not None:
            self._wait_for_user_unit(unit, user, timeout)
            return
        what = f"waiting for unit {unit!r}"
        limit = seconds_of(timeout)
        deadline = Deadline(limit)
        state = "unknown"

        def until(now: UnitState) -> bool:
            nonlocal state
            state = str(now)
            if now.active_state == "failed":
                raise self._failed(f"unit {unit!r} reached state 'failed'{self._said(unit)}")
            if now.active_state == "inactive" and not now.job and not now.pending:
                load = f" (it is {now.load_state})" if now.load_state != "loaded" else ""
                raise self._failed(
                    f"unit {unit!r} is inactive and there are no pending jobs{load}{self._said(unit)}"
                )
            return now.active_state == "active"

        with self._context.waiting(what):
            while not self._watch(unit, until, deadline):
                if deadline.expired:
                    raise self._context.expired(deadline, limit, what, state) from None

    def _watch(self, unit: str, until: Callable[[UnitState], bool], deadline: Deadline) -> bool:
        """Wait for a while; whether the unit is as wanted by then."""
        context = self._context
        remaining = deadline.remaining()
        if context.callbacks:
            # A polling condition is looked at during the wait too.
            remaining = WATCHED if remaining is None else min(remaining, WATCHED)

        def look() -> bool:
            try:
                context.bus().wait_for_unit(unit, until, Deadline(remaining))
            except TimeoutExceeded:
                return False
            return True

        return bool(context.retry_once(look))

    def _wait_for_user_unit(self, unit: str, user: str, timeout: Seconds | None) -> None:
        state = ""

        def attempt(_is_last: bool) -> bool:
            nonlocal state
            state = self.prop(unit, "ActiveState", user, polled=True)
            if state == "failed":
                raise self._failed(f"unit {_named(unit, user)} reached state 'failed'")
            if state == "inactive":
                _status, jobs = self.systemctl("list-jobs --full 2>&1", user, polled=True)
                if "No jobs" in jobs and self.prop(unit, "ActiveState", user, polled=True) == state:
                    raise self._failed(f"unit {_named(unit, user)} is inactive and there are no pending jobs")
            return state == "active"

        what = f"waiting for unit {_named(unit, user)}"
        self._context.retry(attempt, timeout=timeout, what=what, last=lambda: state, interval=(0.02, 0.5))

    def _said(self, unit: str) -> str:
        """The last that a unit logged, for the message of a failed wait."""
        tail = self._journal.tail(unit)
        return f"\njournal:\n{tail}" if tail else ""

    def _failed(self, message: str) -> RequestedAssertionFailed:
        return RequestedAssertionFailed(message=message, node=self._context.node)


def _named(unit: str, user: str | None) -> str:
    return repr(unit) + ("" if user is None else f" of user {user!r}")


def _assignments(text: str) -> dict[str, str]:
    """`systemctl show` as a mapping; a property that is printed more than once has a line for each."""
    found: dict[str, str] = {}
    for match in filter(None, map(_ASSIGNMENT.fullmatch, text.splitlines())):
        name, value = match.groups()
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found
