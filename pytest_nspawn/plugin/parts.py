"""Subtests as in a testScript: each is reported by itself, and a failing one ends the test."""

from __future__ import annotations

import bdb
import contextlib
import time
import types
from typing import Protocol

import pytest
from _pytest.outcomes import Failed

from pytest_nspawn.plugin.run import run_key


class Subtest(Protocol):
    """What the fixture `subtest` gives."""

    def __call__(self, name: str) -> contextlib.AbstractContextManager[object]:
        """A part of the test, reported by itself; where it fails, the test ends, unless --nspawn-continue-subtests."""


@pytest.fixture
def subtest(request: pytest.FixtureRequest, subtests: pytest.Subtests) -> Subtest:
    """A part of a test that is reported by itself, as in a testScript: `with subtest("name"): ...`."""
    run = request.config.stash[run_key]
    return Parts(subtests, request.node, keep_going=run.settings.continue_subtests).subtest


class Parts:
    """The subtests of one script."""

    def __init__(self, subtests: pytest.Subtests, item: pytest.Item, *, keep_going: bool) -> None:
        self.keep_going = keep_going
        self._subtests = subtests
        self._item = item
        self._failed: list[tuple[BaseException, str]] = []

    def subtest(self, name: str) -> Part:
        """Report what is in a block by itself; a failure stops the script, unless it is to go on."""
        return Part(self, name, self._subtests.test(msg=name))

    def ended(self, name: str, seconds: float, error: BaseException | None) -> str:
        """Remember how a subtest ended, for JUnit and for the end of the script; gives its outcome."""
        outcome = "passed"
        if error is not None:
            outcome = "skipped" if isinstance(error, pytest.skip.Exception) else "failed"
            self._failed += [(error, name)] if outcome == "failed" else []
        self._item.user_properties.append((f"subtest[{name}]", f"{outcome}, {seconds:.3f} s"))
        return outcome

    def said_already(self, error: BaseException, whole: str) -> None:
        """Raise something short in the place of a failure that a subtest has reported in full."""
        __tracebackhide__ = True
        name = next((name for failure, name in self._failed if failure is error), None)
        if name is not None:
            raise StoppedAtSubtest(f"the {whole} ends at its subtest {name!r}, which failed") from None


class Part:
    """One subtest. No generator: a traceback is to begin in the script."""

    def __init__(self, parts: Parts, name: str, inner: contextlib.AbstractContextManager[object]) -> None:
        self._parts = parts
        self._name = name
        self._inner = inner
        self._begin = 0.0

    def __enter__(self) -> None:
        self._begin = time.monotonic()
        self._inner.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> bool:
        # Before its own report, which so has its property too.
        outcome = self._parts.ended(self._name, time.monotonic() - self._begin, error)
        swallowed = bool(self._inner.__exit__(kind, error, trace))
        return swallowed and self._parts.keep_going and outcome == "failed"


class StoppedAtSubtest(Failed, bdb.BdbQuit):
    """Ends a test whose failure was reported, and debugged, when its subtest failed: no debugger opens again."""
