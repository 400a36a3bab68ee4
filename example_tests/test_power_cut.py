"""A node loses its power, and comes back with what was on its disk."""

import pytest

from pytest_nspawn import Machine, Node


@pytest.mark.nodes(machine=Node())
def test_files_and_journal_survive_a_power_cut(machine: Machine) -> None:
    machine.succeed(
        "echo precious > /var/lib/data", "echo gone > /run/cache", "logger -t test before the cut"
    )
    machine.wait_for_journal("before the cut")
    leader = machine.leader_pid

    machine.crash()
    assert not machine.is_up()
    machine.start()

    assert machine.succeed("cat /var/lib/data") == "precious\n"
    machine.fail("test -e /run/cache")
    assert "before the cut" in machine.succeed("journalctl --boot=-1 --identifier=test")
    assert machine.leader_pid != leader


@pytest.mark.nodes(machine=Node())
def test_a_reboot_is_a_new_boot_of_the_same_node(machine: Machine) -> None:
    first = machine.succeed("systemctl show --property=UserspaceTimestampMonotonic --value")
    machine.reboot()
    assert machine.succeed("systemctl show --property=UserspaceTimestampMonotonic --value") != first
