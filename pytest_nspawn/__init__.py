"""Multi-node system tests on systemd-nspawn: nodes from a topology, driven by machines, without pytest if need be."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_nspawn.cluster import Cluster, boot
    from pytest_nspawn.errors import (
        BootError,
        CommandFailed,
        ConfigError,
        HostError,
        MachineError,
        NotRunningError,
        NspawnError,
        RequestedAssertionFailed,
        SandboxError,
        TimeoutExceeded,
        UnsupportedError,
    )
    from pytest_nspawn.machine import Machine
    from pytest_nspawn.model import Bind, CommandResult, Network, Node, Topology
    from pytest_nspawn.shell import RemoteProcess

__all__ = [
    "Bind",
    "BootError",
    "Cluster",
    "CommandFailed",
    "CommandResult",
    "ConfigError",
    "HostError",
    "Machine",
    "MachineError",
    "Network",
    "Node",
    "NotRunningError",
    "NspawnError",
    "RemoteProcess",
    "RequestedAssertionFailed",
    "SandboxError",
    "TimeoutExceeded",
    "Topology",
    "UnsupportedError",
    "boot",
]

_ROOMS = {"Cluster": "cluster", "boot": "cluster", "Machine": "machine", "RemoteProcess": "shell"}
_MODEL = ("Bind", "CommandResult", "Network", "Node", "Topology")


def __getattr__(name: str) -> Any:
    # The sandbox's programs import this package too, and the plugin is loaded by every run of pytest.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = _ROOMS.get(name) or ("model" if name in _MODEL else "errors")
    return getattr(importlib.import_module(f"{__name__}.{room}"), name)
