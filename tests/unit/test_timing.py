from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pytest_nspawn import timing
from pytest_nspawn.errors import ConfigError, TimeoutExceeded


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, pause: float) -> None:
        self.pauses.append(pause)
        self.now += pause


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def _factor() -> Iterator[None]:
    yield
    timing.set_factor(1)


def test_seconds() -> None:
    assert timing.seconds(3) == 3.0
    assert timing.seconds(timedelta(minutes=2)) == 120.0


@pytest.mark.parametrize("value", ["3", None, True, float("nan")])
def test_no_seconds(value: Any) -> None:
    with pytest.raises(ConfigError):
        timing.seconds(value)


@pytest.mark.usefixtures("_factor")
def test_the_factor_scales_defaults_only() -> None:
    timing.set_factor(2.5)
    assert timing.default(10) == 25.0
    assert timing.default(timedelta(seconds=2)) == 5.0
    assert timing.seconds(10) == 10.0


@pytest.mark.usefixtures("_factor")
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_no_factor(value: float) -> None:
    with pytest.raises(ConfigError):
        timing.set_factor(value)


def test_a_deadline(clock: Clock) -> None:
    deadline = timing.Deadline(timedelta(seconds=2), clock)
    clock.wait(1.5)
    assert (deadline.elapsed, deadline.remaining(), deadline.expired) == (1.5, 0.5, False)
    clock.wait(1)
    assert (deadline.remaining(), deadline.expired) == (0.0, True)


def test_a_deadline_that_never_comes(clock: Clock) -> None:
    deadline = timing.Deadline(None, clock)
    clock.wait(1e9)
    assert (deadline.remaining(), deadline.expired) == (None, False)


def test_retry_gives_what_the_function_gives_at_last(clock: Clock) -> None:
    answers: Iterator[str | bool | None] = iter([None, False, "yes"])
    assert (
        timing.retry(lambda last: next(answers), timeout=9, what="x", clock=clock, wait=clock.wait) == "yes"
    )
    assert clock.pauses == [0.01, 0.015]


def test_pauses_grow_to_the_longest_and_never_pass_the_deadline(clock: Clock) -> None:
    told: list[bool] = []
    with pytest.raises(TimeoutExceeded) as caught:
        timing.retry(told.append, timeout=3, what="it", interval=(0.1, 0.4), clock=clock, wait=clock.wait)
    assert max(clock.pauses) == 0.4
    assert clock.now == pytest.approx(103)
    assert told == [False] * (len(told) - 1) + [True]
    assert (caught.value.what, caught.value.limit) == ("it", 3.0)
    assert caught.value.elapsed == pytest.approx(3)
    assert caught.value.__suppress_context__


def test_no_time_is_one_try(clock: Clock) -> None:
    told: list[bool] = []
    with pytest.raises(TimeoutExceeded):
        timing.retry(told.append, timeout=0, what="it", clock=clock, wait=clock.wait)
    assert told == [True]


def test_what_the_function_raises_passes(clock: Clock) -> None:
    def fails(last: bool) -> None:
        if last:
            raise LookupError("the reason")

    with pytest.raises(LookupError, match="the reason"):
        timing.retry(fails, timeout=1, what="it", clock=clock, wait=clock.wait)
