"""A service that crashes is started again by systemd."""

import pytest

from pytest_nspawn import Machine, Node

FRAGILE = """\
[Service]
ExecStart=/usr/bin/sleep infinity
Restart=on-failure
RestartSec=100ms

[Install]
WantedBy=multi-user.target
"""


@pytest.mark.nodes(machine=Node(units={"fragile.service": FRAGILE}))
def test_systemd_restarts_a_crashed_service(machine: Machine) -> None:
    machine.wait_for_unit("fragile.service")
    before = machine.get_unit_property("fragile.service", "MainPID")

    machine.succeed(f"kill -SEGV {before}")

    machine.wait_for_journal("Scheduled restart job", unit="fragile.service", timeout=10)
    machine.wait_for_unit("fragile.service")
    assert machine.get_unit_property("fragile.service", "MainPID") != before
    assert machine.get_unit_property("fragile.service", "NRestarts") == "1"
