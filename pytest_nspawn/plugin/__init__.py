"""The entry point `nspawn`: options, hooks and marks; the rooms beside it do the work.

Importing it must stay cheap: whoever has the package installed pays for it in every pytest run.
"""

from __future__ import annotations

import pytest

from pytest_nspawn.plugin import collect, fixtures, hookspecs, nix_tests, options, parts, report, shell
from pytest_nspawn.plugin.parts import Subtest
from pytest_nspawn.plugin.run import Run, run_key

__all__ = [
    "Subtest",
    "pytest_addhooks",
    "pytest_addoption",
    "pytest_configure",
    "pytest_report_header",
    "pytest_unconfigure",
]


_MARKS = (
    "nodes(*variants, scope='function', start=True, **nodes): boot these nodes for tests that ask for one by name",
    "networks(mapping=None, /, **networks): the networks between the nodes, as Network values or subnets",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the group of options and their twins in the ini file."""
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Offer our hooks to other plugins and to conftest files."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, declare the marks, and let the rooms in."""
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)
    settings = options.read_settings(config)
    options.apply_timeout_factor(settings.timeout_factor)
    config.stash[run_key] = run = Run(config, settings)
    rooms = {
        "collect": collect,
        "nix_tests": nix_tests,
        "parts": parts,
        "fixtures": fixtures,
        "report": report,
        "shell": shell,
        "events": run.events,
        "progress": run.progress,
    }
    for name, room in rooms.items():
        config.pluginmanager.register(room, f"nspawn-{name}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind in a process that goes on, as one that calls `pytest.main()` twice does."""
    if run := config.stash.get(run_key, None):
        run.progress.close()
        options.apply_timeout_factor(1.0)


def pytest_report_header(config: pytest.Config) -> str:
    """Say what nodes are made of, and where they run."""
    return options.header(config.stash[run_key].settings)
