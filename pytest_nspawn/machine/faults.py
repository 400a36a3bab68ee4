"""Faults of a node and of its cables, as methods of the machine."""

from __future__ import annotations

from pytest_nspawn.machine.context import hidden
from pytest_nspawn.machine.links import Links
from pytest_nspawn.machine.power import Power

__tracebackhide__ = hidden


class FaultMethods:
    """What befalls a node; a power cut is `crash()`."""

    _links: Links
    _power: Power

    def freeze(self) -> None:
        """Stop every process of the node where it is: it answers nothing until `thaw()`."""
        self._power.freeze(True)

    def thaw(self) -> None:
        """Let it run on."""
        self._power.freeze(False)

    @property
    def links(self) -> Links:
        """The node's links by network: `links[1].down()`, `.up()`, `.set(delay=..., loss=..., rate=...)`."""
        return self._links

    def block(self) -> None:
        """Unplug the node from all its networks: it sees its links go down."""
        self._links.change_all("unplugging from all networks", up=False)

    def unblock(self) -> None:
        """Plug it back."""
        self._links.change_all("plugging into all networks", up=True)
