"""The world that a NixOS testScript expects: its globals, its logger, and its lines in the .nix file."""

from __future__ import annotations

from pytest_nspawn.driver.driver import SLOW_JOB, Debug, Driver, Nodes, Surroundings, Vlan
from pytest_nspawn.driver.limit import GLOBAL_TIMEOUT
from pytest_nspawn.driver.log import ScriptLog
from pytest_nspawn.driver.polling import Poll
from pytest_nspawn.driver.script import Script, locate
from pytest_nspawn.driver.verdict import Verdict, judge, script_of, vm_only_calls
from pytest_nspawn.nixbuild import node_of_test

__all__ = [
    "GLOBAL_TIMEOUT",
    "SLOW_JOB",
    "Debug",
    "Driver",
    "Nodes",
    "Poll",
    "Script",
    "ScriptLog",
    "Surroundings",
    "Verdict",
    "Vlan",
    "judge",
    "locate",
    "node_of_test",
    "script_of",
    "vm_only_calls",
]
