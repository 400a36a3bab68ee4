"""Hooks for other plugins. All are called on the thread that runs the tests.

What happens in the background (a boot, commands from other threads) is reported at the next safe point on that thread:
the next command to a node, or the end of the set-up, call or teardown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nspawn.model import CommandResult, Node

if TYPE_CHECKING:
    from pytest_nspawn.machine import Machine


@pytest.hookspec
def pytest_nspawn_image_kinds(config: pytest.Config) -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Return further kinds of image, by the name that stands before the colon in `Node(image="kind:argument")`."""


@pytest.hookspec
def pytest_nspawn_node_args(node: Node, args: list[str], name: str) -> None:
    """Change, in place, the extra systemd-nspawn arguments of the node called `name`, before it boots."""


@pytest.hookspec
def pytest_nspawn_node_started(machine: Machine) -> None:
    """A boot of a node has begun; a node that restarts starts again."""


@pytest.hookspec
def pytest_nspawn_node_ready(machine: Machine) -> None:
    """A node has booted and runs commands."""


@pytest.hookspec
def pytest_nspawn_node_failed(machine: Machine) -> None:
    """A node did not boot, or not in time."""


@pytest.hookspec
def pytest_nspawn_node_stopped(machine: Machine) -> None:
    """A node has stopped, asked to or not."""


@pytest.hookspec
def pytest_nspawn_command(machine: Machine, result: CommandResult) -> None:
    """A command in a node has ended, whatever its exit code."""
