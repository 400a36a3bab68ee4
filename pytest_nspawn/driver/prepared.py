"""An existing NixOS test, evaluated: nodes as a topology, and the script that drives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pytest_nspawn.model import Topology


class PreparedTest(Protocol):
    """What evaluation gives of a test; `nixbuild.NixTest` is one."""

    @property
    def name(self) -> str:
        """The test's own name."""

    @property
    def topology(self) -> Topology:
        """Its nodes and networks, built."""

    @property
    def script(self) -> str:
        """The script as text."""

    @property
    def line(self) -> int | None:
        """The line of `file` that has the script's first line, where it is known."""

    @property
    def file(self) -> Path | None:
        """The file that the script is in, where it is known."""

    @property
    def vm_only(self) -> Mapping[str, Sequence[str]]:
        """Options that need a virtual machine, by node."""

    @property
    def host_names(self) -> Mapping[str, str]:
        """Host names that differ from the names of their nodes, and those."""

    @property
    def timeout(self) -> float | None:
        """Seconds that the script may take."""
