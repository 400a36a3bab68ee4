from __future__ import annotations

import shlex
import threading

import pytest

from pytest_nspawn.errors import NotRunningError, RequestedAssertionFailed, TimeoutExceeded
from pytest_nspawn.machine import Machine

from .fakes import FakeBus, LocalContainer, later


@pytest.fixture
def commands(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be run in the node; nothing is, and `show` prints two properties."""
    asked: list[str] = []
    run = machine._commands.run

    def pretend(command: str, **options: object) -> object:
        asked.append(command)
        return run("echo Id=x.service; echo Names=x.service y=z; echo; echo ExecStart=a; echo ExecStart=b")

    monkeypatch.setattr(machine._commands, "run", pretend)
    return asked


def test_wait_for_unit_returns_when_it_is_active(machine: Machine, bus: FakeBus) -> None:
    bus.put("x.service", "activating", job=1, pending=1)
    active = threading.Event()

    def become_active() -> None:
        active.set()
        bus.put("x.service", "active")

    later(0.2, become_active)
    machine.wait_for_unit("x.service", timeout=60)
    assert active.is_set()


def test_wait_for_unit_fails_at_once_when_it_failed(machine: Machine, bus: FakeBus) -> None:
    bus.put("x.service", "activating", job=1, pending=1)
    later(0.1, lambda: bus.put("x.service", "failed"))
    with pytest.raises(RequestedAssertionFailed, match=r"unit 'x\.service' reached state 'failed'"):
        machine.wait_for_unit("x.service")


def test_wait_for_unit_fails_at_once_when_nothing_will_start_it(machine: Machine, bus: FakeBus) -> None:
    bus.put("x.service", "inactive", pending=1)
    later(0.1, lambda: bus.put("x.service", "inactive"))
    with pytest.raises(RequestedAssertionFailed, match="inactive and there are no pending jobs"):
        machine.wait_for_unit("x.service")
    with pytest.raises(RequestedAssertionFailed, match="not-found"):
        machine.wait_for_unit("typo.service")


def test_wait_for_unit_says_the_last_state(machine: Machine, bus: FakeBus) -> None:
    bus.put("x.service", "activating", "start-pre", job=1, pending=1)
    with pytest.raises(TimeoutExceeded) as caught:
        machine.wait_for_unit("x.service", timeout=0.2)
    assert "activating (start-pre" in str(caught.value)
    assert caught.value.limit == 0.2


def test_wait_for_unit_ends_with_its_node(machine: Machine, bus: FakeBus, container: LocalContainer) -> None:
    bus.put("x.service", "activating", job=1, pending=1)
    later(0.1, container.kill)
    with pytest.raises(NotRunningError):
        machine.wait_for_unit("x.service")


def test_wait_for_unit_goes_on_over_a_reboot(
    machine: Machine, bus: FakeBus, container: LocalContainer
) -> None:
    bus.put("x.service", "activating", job=1, pending=1)
    later(0.1, container.begin_reboot)
    later(0.3, lambda: container.start({"x.service": "active"}))
    machine.wait_for_unit("x.service", timeout=60)
    assert container.boots == 2


def test_callbacks_are_looked_at_during_a_wait(machine: Machine, bus: FakeBus) -> None:
    def callback() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise RequestedAssertionFailed(message="the condition is false")

    calls: list[int] = []
    bus.put("x.service", "activating", job=1, pending=1)
    machine.callbacks.append(callback)
    with pytest.raises(RequestedAssertionFailed, match="the condition is false"):
        machine.wait_for_unit("x.service", timeout=60)


def test_require_unit_state(machine: Machine, bus: FakeBus) -> None:
    bus.put("x.service", "active", "running")
    machine.require_unit_state("x.service")
    with pytest.raises(RequestedAssertionFailed, match=r"'inactive'.*'active'.*running"):
        machine.require_unit_state("x.service", "inactive")


def test_a_property_comes_over_the_bus_where_it_can(
    machine: Machine, bus: FakeBus, commands: list[str]
) -> None:
    bus.properties["x.service", "ActiveState"] = "active"
    assert machine.get_unit_property("x.service", "ActiveState") == "active"
    assert commands == []
    with pytest.raises(RequestedAssertionFailed, match="invalid output"):
        machine.get_unit_property("x.service", "Missing")
    assert commands == ["systemctl --no-pager show x.service --property=Missing"]


def test_info_is_what_systemctl_shows(machine: Machine, commands: list[str]) -> None:
    info = machine.get_unit_info("x.service")
    assert info == {"Id": "x.service", "Names": "x.service y=z", "ExecStart": "a\nb"}
    assert commands == ["systemctl --no-pager show x.service"]


def test_systemctl_of_a_user_is_quoted(machine: Machine, commands: list[str]) -> None:
    machine.systemctl("show 'a b'", user="al ice")
    (command,) = commands
    program, _, script = command.partition(" -c ")
    assert program == "su -l 'al ice' --shell /bin/sh"
    assert shlex.split(script) == ["""XDG_RUNTIME_DIR="/run/user/$(id -u)" systemctl --user show 'a b'"""]
    machine.start_job("x.service")
    machine.stop_job("x.service", "bob")
    assert commands[1] == "systemctl start x.service"
    assert commands[2].endswith("systemctl --user stop x.service'")


def test_the_view_of_units(machine: Machine, bus: FakeBus) -> None:
    bus.put("b.service", "active", "running")
    bus.put("a.socket", "active", "listening")
    assert list(machine.units) == ["a.socket", "b.service"]
    assert len(machine.units) == 2
    assert "b" in machine.units
    assert "c.service" not in machine.units
    unit = machine.units["b"]
    assert (unit.name, unit.load_state, unit.active_state, unit.sub_state) == (
        "b.service",
        "loaded",
        "active",
        "running",
    )
    assert machine.units["c.service"].load_state == "not-found"
    for verb in ("start", "stop", "restart", "reload"):
        getattr(unit, verb)()
    assert bus.jobs == [f"{verb} b.service" for verb in ("start", "stop", "restart", "reload")]


@pytest.mark.parametrize("result", ["failed", "dependency", "canceled", "timeout", "refused"])
def test_a_job_that_ends_badly_is_a_failed_assertion(machine: Machine, bus: FakeBus, result: str) -> None:
    bus.put("x.service", "failed")
    bus.results["x.service"] = result
    with pytest.raises(RequestedAssertionFailed, match=r"restart x\.service"):
        machine.units["x.service"].restart()
