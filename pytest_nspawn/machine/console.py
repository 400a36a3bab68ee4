"""The console of a node, with the NixOS test driver's verbs."""

from __future__ import annotations

import re

from pytest_nspawn.errors import ConfigError, NotRunningError, TimeoutExceeded
from pytest_nspawn.machine.context import Context, hidden, seconds_of
from pytest_nspawn.timing import Deadline, Seconds

__tracebackhide__ = hidden

_STEP = 0.5
"""Seconds between two looks whether the node still runs: a console that is only silent does not tell."""


class ConsoleVerbs:
    """Reads and types at one node's console."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def wait_for(self, regex: str, timeout: Seconds | None) -> None:
        """Wait until the node prints what matches. Raises TimeoutExceeded, NotRunningError."""
        what = f"waiting for {regex!r} to appear on the console"
        try:
            re.compile(regex)
        except re.error as error:
            problem = f"wait_for_console_text: no regular expression ({error})"
            raise ConfigError(problem=problem, node=self._context.node, value=regex) from error
        limit = seconds_of(timeout)
        deadline = Deadline(limit)
        with self._context.waiting(what):
            while not self._look(regex, deadline):
                if deadline.expired:
                    tail = self._context.container.console.log()[-1000:].strip()
                    raise self._context.expired(
                        deadline, limit, what, f"it printed at last: {tail}"
                    ) from None

    def _look(self, regex: str, deadline: Deadline) -> bool:
        self._context.run_callbacks()
        running = self._context.container.running
        remaining = deadline.remaining()
        # What is printed last comes before the end: one look at what a node that ended has left.
        step = min(_STEP, _STEP if remaining is None else remaining) if running else 0.0
        try:
            self._context.container.console.wait_for(regex, Deadline(step))
        except TimeoutExceeded:
            if not running:
                raise NotRunningError(node=self._context.node) from None
            return False
        return True
