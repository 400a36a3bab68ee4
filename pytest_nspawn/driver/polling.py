"""Conditions that must hold while commands run: the NixOS test driver's `polling_condition`.

A condition is looked at before each command, and again and again while one runs or waits: as soon as it is false, what
runs is ended, and the test fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from pytest_nspawn import timing
from pytest_nspawn.driver.log import ScriptLog
from pytest_nspawn.errors import RequestedAssertionFailed, TimeoutExceeded
from pytest_nspawn.machine.context import LIMIT, hidden, seconds_of
from pytest_nspawn.timing import Seconds

__tracebackhide__ = hidden

Condition = Callable[[], object]


class Watchers(Protocol):
    """Where the conditions that must hold just now are."""

    log: ScriptLog
    polling_conditions: list[Poll]


class Poll:
    """A condition; in a `with` it must hold, `wait()` waits until it does."""

    def __init__(
        self,
        watchers: Watchers,
        condition: Condition,
        *,
        seconds_interval: float,
        description: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watchers = watchers
        self._condition = condition
        self._interval = timing.seconds(seconds_interval)
        said = (condition.__doc__ or "").strip().partition("\n")[0]
        self.description = description or said or getattr(condition, "__name__", repr(condition))
        self._clock = clock
        self._looked_at: float | None = None
        self._cause: BaseException | None = None

    def __repr__(self) -> str:
        return f"<polling condition: {self.description}>"

    def __enter__(self) -> None:
        self._looked_at = None
        self._watchers.polling_conditions.append(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchers.polling_conditions.remove(self)

    def __call__(self) -> bool:
        """Whether it holds just now."""
        return self.check(force=True)

    @property
    def overdue(self) -> bool:
        """Whether it is time to look again."""
        return self._looked_at is None or self._clock() - self._looked_at >= self._interval

    def check(self, force: bool = False) -> bool:
        """Whether it holds; between two looks it is taken to. An exception is a no, None is a yes."""
        if not (force or self.overdue):
            return True
        self._cause = None
        try:
            result = self._condition()
        except Exception as error:  # noqa: BLE001 (the condition says no by raising; the error is told)
            self._cause, result = error, False
        self._looked_at = self._clock()
        return result is None or bool(result)

    def maybe_raise(self) -> None:
        """Raise RequestedAssertionFailed where it does not hold."""
        if not self.check():
            raise RequestedAssertionFailed(
                message=f"polling condition failed: {self.description}{self._why()}", cause=self._cause
            ) from None

    def wait(self, timeout: Seconds | None = LIMIT) -> None:
        """Wait until it holds. Raises TimeoutExceeded."""
        what = f"waiting for {self.description}"
        with self._watchers.log.nested(what):
            try:
                timing.retry(lambda _is_last: self.check(force=True), timeout=seconds_of(timeout), what=what)
            except TimeoutExceeded as error:
                last = self._why().lstrip(": \n") or "it does not hold"
                raise TimeoutExceeded(
                    what=what, elapsed=error.elapsed, limit=error.limit, last=last
                ) from None

    def _why(self) -> str:
        return f": {self._cause}" if self._cause is not None else ""
