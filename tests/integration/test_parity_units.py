"""Parity with the NixOS test driver, on real nodes: units, of the system and of a user."""

from __future__ import annotations

import pytest

from pytest_nspawn import Machine
from pytest_nspawn.errors import RequestedAssertionFailed, TimeoutExceeded

UNITS = {
    "quick": "ExecStart=/bin/sleep 1000",
    "slow": "ExecStartPre=/bin/sleep 0.7\nExecStart=/bin/sleep 1000",
    "stuck": "Type=oneshot\nExecStart=/bin/sleep 1000",
    "broken": "Type=oneshot\nExecStart=/bin/false",
}


@pytest.fixture(scope="module", autouse=True)
def units(machine: Machine) -> None:
    for name, text in UNITS.items():
        machine.write_text(f"/etc/systemd/system/{name}.service", f"[Service]\n{text}\n")
    machine.succeed("systemctl daemon-reload")


@pytest.fixture(scope="module")
def alice(machine: Machine) -> str:
    """A user with a systemd of her own."""
    machine.succeed("useradd -m alice", "loginctl enable-linger alice")
    for name, text in UNITS.items():
        machine.succeed("su alice -c 'mkdir -p ~alice/.config/systemd/user'")
        machine.write_text(f"/home/alice/.config/systemd/user/{name}.service", f"[Service]\n{text}\n")
    machine.wait_until_succeeds("systemctl is-active user@$(id -u alice)", timeout=30)
    assert machine.systemctl("daemon-reload", "alice")[0] == 0
    return "alice"


def test_systemctl(machine: Machine) -> None:
    code, text = machine.systemctl("is-system-running")
    assert (code, text.strip()) in [(0, "running"), (1, "degraded")]
    assert "ActiveState" in machine.systemctl("show dbus.socket")[1]


def test_systemctl_of_a_user(machine: Machine, alice: str) -> None:
    _code, text = machine.systemctl("is-system-running", alice)
    assert text.strip() in ("running", "degraded")
    assert "quick.service" in machine.systemctl("list-unit-files", user=alice)[1]


def test_systemctl_fails(machine: Machine) -> None:
    assert machine.systemctl("start no-such-unit")[0] == 5


def test_start_job(machine: Machine) -> None:
    assert machine.start_job("quick") == (0, "")
    machine.require_unit_state("quick.service")


def test_start_job_fails(machine: Machine) -> None:
    code, _text = machine.start_job("broken")
    assert code == 1


def test_stop_job(machine: Machine) -> None:
    machine.start_job("quick")
    assert machine.stop_job("quick") == (0, "")
    machine.require_unit_state("quick.service", "inactive")


def test_stop_job_fails(machine: Machine) -> None:
    assert machine.stop_job("no-such-unit")[0] == 5


def test_jobs_of_a_user(machine: Machine, alice: str) -> None:
    assert machine.start_job("quick", alice)[0] == 0
    machine.wait_for_unit("quick", alice, timeout=60)
    assert machine.stop_job("quick", user=alice)[0] == 0


def test_wait_for_unit(machine: Machine) -> None:
    machine.succeed("systemctl start --no-block slow")
    machine.wait_for_unit("slow.service", timeout=30)
    machine.wait_for_unit("slow")
    machine.wait_for_unit("multi-user.target")


def test_wait_for_unit_of_a_user(machine: Machine, alice: str) -> None:
    machine.succeed(
        f"su -l {alice} -s /bin/sh -c 'XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user start --no-block slow'"
    )
    machine.wait_for_unit("slow.service", user=alice, timeout=30)


def test_wait_for_unit_fails(machine: Machine) -> None:
    machine.start_job("broken")
    with pytest.raises(RequestedAssertionFailed, match="reached state 'failed'"):
        machine.wait_for_unit("broken.service")
    machine.stop_job("quick")
    with pytest.raises(RequestedAssertionFailed, match="is inactive and there are no pending jobs"):
        machine.wait_for_unit("quick.service")


def test_wait_for_unit_of_a_user_fails(machine: Machine, alice: str) -> None:
    machine.start_job("broken", alice)
    with pytest.raises(RequestedAssertionFailed, match="failed"):
        machine.wait_for_unit("broken", alice)
    machine.stop_job("quick", alice)
    with pytest.raises(RequestedAssertionFailed, match="inactive"):
        machine.wait_for_unit("quick", alice)


def test_wait_for_unit_times_out(machine: Machine, alice: str) -> None:
    machine.succeed("systemctl start --no-block stuck")
    with pytest.raises(TimeoutExceeded, match="activating"):
        machine.wait_for_unit("stuck.service", timeout=0.5)
    machine.succeed(
        f"su -l {alice} -s /bin/sh -c 'XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user start --no-block stuck'"
    )
    with pytest.raises(TimeoutExceeded, match="activating"):
        machine.wait_for_unit("stuck", alice, timeout=0.5)


def test_require_unit_state(machine: Machine) -> None:
    machine.start_job("quick")
    machine.require_unit_state("quick.service")
    machine.stop_job("quick")
    machine.require_unit_state("quick.service", "inactive")


def test_require_unit_state_fails(machine: Machine) -> None:
    machine.stop_job("quick")
    with pytest.raises(
        RequestedAssertionFailed, match=r"expected unit 'quick\.service' to be in state 'active'"
    ):
        machine.require_unit_state("quick.service")


def test_get_unit_info(machine: Machine, alice: str) -> None:
    info = machine.get_unit_info("quick.service")
    assert info["Id"] == "quick.service"
    assert info["LoadState"] == "loaded"
    assert machine.get_unit_info("quick.service", alice)["FragmentPath"].startswith("/home/alice/")


def test_get_unit_info_fails(machine: Machine) -> None:
    with pytest.raises(RequestedAssertionFailed, match="no-user"):
        machine.get_unit_info("quick.service", "no-user")


def test_get_unit_property(machine: Machine, alice: str) -> None:
    machine.stop_job("quick")
    assert machine.get_unit_property("quick.service", "ActiveState") == "inactive"
    assert machine.get_unit_property("quick.service", "Id", alice) == "quick.service"


def test_get_unit_property_fails(machine: Machine) -> None:
    with pytest.raises(RequestedAssertionFailed, match="NoSuchProperty"):
        machine.get_unit_property("quick.service", "NoSuchProperty")
