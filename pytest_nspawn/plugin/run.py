"""What belongs to one run of pytest: its settings, and the clusters that live just now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_nspawn.errors import ConfigError, NspawnError
from pytest_nspawn.plugin.events import Events
from pytest_nspawn.plugin.options import Settings
from pytest_nspawn.plugin.progress import Progress, terminal_of

if TYPE_CHECKING:
    from typing import NoReturn

    from pytest_nspawn.machine import Machine
    from pytest_nspawn.plugin.live import LiveCluster
    from pytest_nspawn.plugin.seams import BootEvent


_NIX = "nix"


class Run:
    """One run of pytest; made when it is configured, cheap until a node is asked for."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.events = Events(config.hook)
        self.progress = Progress(terminal_of(config))
        self.live: list[LiveCluster] = []
        self.item: pytest.Item | None = None
        """The test that runs now."""
        self._building: str | None = None

    def booting(self, event: BootEvent, machine: Machine) -> None:
        """Pass on what happens to a node, on whatever thread, to the terminal and to other plugins."""
        if event == "started":
            self.progress.started(id(machine), machine.name, lambda: self._status(machine))
        else:
            self.progress.ended(id(machine))
        self.events.boot(event, machine)

    def building(self, status: str | None) -> None:
        """Show what Nix does; None when it is done."""
        if status is None:
            self.progress.ended(_NIX)
            self._building = None
        elif self._building is None:
            self._building = status
            self.progress.started(_NIX, "nix", lambda: self._building or "")
        else:
            self._building = status

    def _status(self, machine: Machine) -> str:
        for live in self.live[:]:
            if machine.name in live.cluster and live.cluster[machine.name] is machine:
                return live.cluster.status(machine.name)
        return ""


run_key = pytest.StashKey[Run]()


def refuse(error: NspawnError, item: pytest.Item | None) -> NoReturn:
    """End the set-up of a test with an error as its whole report: the user's input is at fault, not our frames."""
    __tracebackhide__ = True
    if isinstance(error, ConfigError) and error.test is None and item is not None:
        error.test = item.nodeid
    raise pytest.fail.Exception(str(error), pytrace=False) from None
