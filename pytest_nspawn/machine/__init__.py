"""The `Machine`: verbs over a node's four channels, its shell, its systemd, its console and its power."""

from __future__ import annotations

from pytest_nspawn.machine.machine import Machine, MachineOptions
from pytest_nspawn.machine.unit_view import Unit, Units

__all__ = ["Machine", "MachineOptions", "Unit", "Units"]
