from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nspawn.machine import Machine, MachineOptions
from pytest_nspawn.model import CommandResult

from .fakes import FakeBus, LocalContainer


@pytest.fixture
def container() -> Iterator[LocalContainer]:
    container = LocalContainer()
    container.start()
    container.shell().run("true")  # the first command waits for the agent to be there
    yield container
    container.kill()


@pytest.fixture
def seen() -> list[CommandResult]:
    """What the machine told `on_command`."""
    return []


@pytest.fixture
def machine(container: LocalContainer, seen: list[CommandResult], tmp_path: Path) -> Iterator[Machine]:
    options = MachineOptions(
        tmp_dir=tmp_path / "machines",
        out_dir=tmp_path / "out",
        on_command=lambda _machine, result: seen.append(result),
    )
    machine = Machine(container, options=options)
    yield machine
    machine.release()


@pytest.fixture
def bus(container: LocalContainer) -> FakeBus:
    return container.fake_bus
