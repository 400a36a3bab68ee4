"""The report of a failed assertion ends in the test's own line; that of a fault shows the way to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nspawn.errors import NotRunningError, RequestedAssertionFailed
from pytest_nspawn.machine import Machine

from .fakes import FakeBus, LocalContainer

WAYS: dict[str, Callable[[Machine], object]] = {
    "succeed": lambda machine: machine.succeed("false"),
    "fail": lambda machine: machine.fail("true"),
    "run": lambda machine: machine.run("false", check=True),
    "wait_until_succeeds": lambda machine: machine.wait_until_succeeds("false", timeout=0.05),
    "wait_for_unit": lambda machine: machine.wait_for_unit("failed.service"),
    "wait_for_unit, too long": lambda machine: machine.wait_for_unit("slow.service", timeout=0.05),
    "require_unit_state": lambda machine: machine.require_unit_state("failed.service"),
    "units": lambda machine: machine.units["failed.service"].start(),
    "wait_for_file": lambda machine: machine.wait_for_file("/not/there", timeout=0.05),
    "wait_for_file, shell": lambda machine: machine.wait_for_file("/not/ther*", timeout=0.05),
    "wait_for_open_port": lambda machine: machine.wait_for_open_port(1, timeout=0.05),
    "wait_for_open_unix_socket": lambda machine: machine.wait_for_open_unix_socket(
        "/not/there", timeout=0.05
    ),
    "wait_for_console_text": lambda machine: machine.wait_for_console_text("never", timeout=0.05),
    "wait_for_shutdown": lambda machine: machine.wait_for_shutdown(timeout=0.05),
}


@pytest.fixture(autouse=True)
def units(bus: FakeBus) -> None:
    bus.put("failed.service", "failed")
    bus.put("slow.service", "activating", job=1, pending=1)
    bus.results["failed.service"] = "failed"


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_failed_assertion_ends_in_the_test(machine: Machine, way: Callable[[Machine], object]) -> None:
    with pytest.raises(RequestedAssertionFailed) as caught:
        way(machine)
    visible = caught.traceback.filter(caught)
    assert Path(visible[-1].path) == Path(__file__)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert caught.value.node == "server"


def test_a_fault_shows_where(machine: Machine, container: LocalContainer) -> None:
    container.kill()
    with pytest.raises(NotRunningError) as caught:
        machine.succeed("true")
    assert Path(caught.traceback.filter(caught)[-1].path) != Path(__file__)
