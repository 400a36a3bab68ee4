"""A failed test's report says what its nodes did."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_nspawn.plugin import evidence
from pytest_nspawn.plugin.run import run_key


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the sections; before teardown, so the nodes of a failed call still run."""
    report = yield
    if report.failed:
        report.sections.extend(evidence.of_failed(item.config.stash[run_key], item))
    return report
