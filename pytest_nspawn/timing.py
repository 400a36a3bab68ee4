"""Time limits: seconds or timedeltas in, deadlines and retries out; the clock can be handed in."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias, TypeVar

from pytest_nspawn.errors import ConfigError, TimeoutExceeded

Seconds: TypeAlias = float | timedelta

T = TypeVar("T")

_factor = 1.0


def seconds(value: Seconds) -> float:
    """A duration in seconds. Raises ConfigError for what is none."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    given: object = value
    if isinstance(given, bool) or not isinstance(given, int | float) or math.isnan(given):
        raise ConfigError(problem="not a duration", value=value, hint="give seconds or a timedelta")
    return float(given)


def set_factor(factor: float) -> None:
    """Scale every default time-out of this process (--nspawn-timeout-factor). Raises ConfigError."""
    global _factor  # noqa: PLW0603 (one setting for the whole run)
    if not 0 < seconds(factor) < math.inf:
        raise ConfigError(problem="no factor for time-outs", value=factor, hint="give a number above zero")
    _factor = factor


def default(value: Seconds) -> float:
    """A default time-out in seconds, scaled; what a test asks for itself is not."""
    return seconds(value) * _factor


class Deadline:
    """A moment after which to give up; None never comes."""

    def __init__(self, limit: Seconds | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = None if limit is None else seconds(limit)
        self._clock = clock
        self._begin = clock()

    @property
    def elapsed(self) -> float:
        """Seconds since it was set."""
        return self._clock() - self._begin

    def remaining(self) -> float | None:
        """Seconds that are left, never below zero; None: no limit."""
        return None if self.limit is None else max(0.0, self.limit - self.elapsed)

    @property
    def expired(self) -> bool:
        """Whether it has come."""
        return self.remaining() == 0.0


def retry(
    function: Callable[[bool], T | None],
    *,
    timeout: Seconds | None,
    what: str,
    interval: tuple[float, float] = (0.01, 0.5),
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] | None = None,
) -> T:
    """Call a function until it gives something other than None and False, and give that; for what no event tells.

    It is told whether this is the last try. `interval` has the first and the longest pause in seconds; each pause is
    half as long again as the one before. Raises TimeoutExceeded.
    """
    deadline = Deadline(timeout, clock)
    pause, longest = interval
    rest = wait or threading.Event().wait
    while True:
        last = deadline.expired
        result = function(last)
        if result is not None and result is not False:
            return result
        if last:
            raise TimeoutExceeded(what=what, elapsed=deadline.elapsed, limit=deadline.limit or 0.0) from None
        left = deadline.remaining()
        rest(pause if left is None else min(pause, left))
        pause = min(pause * 1.5, longest)
