"""A failed test's report says what its nodes did."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_nspawn.plugin import evidence
from pytest_nspawn.plugin.parts import StoppedAtSubtest
from pytest_nspawn.plugin.run import run_key

_told_key = pytest.StashKey[list[BaseException]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the sections; before teardown, so the nodes of a failed call still run."""
    report = yield
    if report.failed and not _is_told(item, call):
        report.sections.extend(evidence.of_failed(item.config.stash[run_key], item))
    return report


def _is_told(item: pytest.Item, call: pytest.CallInfo[None]) -> bool:
    """Whether a report of the test had all of it: one subtest's failure that ends the test is reported again."""
    error = call.excinfo.value if call.excinfo is not None else None
    told = item.stash.setdefault(_told_key, [])
    if error is None or isinstance(error, StoppedAtSubtest) or any(each is error for each in told):
        return True
    told.append(error)
    return False
