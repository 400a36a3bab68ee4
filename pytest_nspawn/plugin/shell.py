"""`--nspawn-shell`: when a test fails, a shell on one of its nodes while they still run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from pytest_nspawn.errors import NspawnError
from pytest_nspawn.plugin import evidence
from pytest_nspawn.plugin.run import Run, run_key


def pytest_exception_interact(node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any]) -> None:
    """Open the shell; a teardown's failure comes too late for one."""
    run = node.config.stash[run_key]
    if not run.settings.shell or not isinstance(node, pytest.Item) or call.when == "teardown":
        return
    live = evidence.clusters_of(run, node)
    machines = {name: each.cluster[name] for each in live for name in each.cluster}
    if not machines:
        return
    name = _choose(machines, call.excinfo.value if call.excinfo else None)
    others = ", ".join(other for other in machines if other != name)
    with ExitStack() as stack:
        stack.enter_context(run.progress.paused())
        _suspend_capture(run, stack)
        terminal = node.config.get_terminal_writer()
        terminal.line()
        terminal.sep(">", f"shell on {name}" + (f" (running too: {others})" if others else ""))
        try:
            machines[name].shell_interact()
        except NspawnError as error:
            terminal.line(f"no shell on {name}: {error}")
        terminal.sep("<", f"end of the shell on {name}")


def _choose(machines: dict[str, Any], error: BaseException | None) -> str:
    """The node that the error is about, else the one with the last command, else the first."""
    blamed = getattr(error, "node", None)
    if blamed in machines:
        return str(blamed)
    return max(machines, key=lambda name: len(machines[name].history))


def _suspend_capture(run: Run, stack: ExitStack) -> None:
    manager: Any = run.config.pluginmanager.getplugin("capturemanager")
    if manager is not None:
        manager.suspend(in_=True)
        stack.callback(manager.resume)
