"""A failed test's report says what its nodes did."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_nspawn.plugin import evidence
from pytest_nspawn.plugin.nix_tests import StoppedAtSubtest
from pytest_nspawn.plugin.run import run_key


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the sections; before teardown, so the nodes of a failed call still run."""
    report = yield
    # A testScript that ended at a subtest: the subtest's own report told all of it.
    told = call.excinfo is not None and isinstance(call.excinfo.value, StoppedAtSubtest)
    if report.failed and not told:
        report.sections.extend(evidence.of_failed(item.config.stash[run_key], item))
    return report
