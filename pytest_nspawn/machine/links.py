"""A node's links: pulled, plugged, impaired: `machine.links[1].down()`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_nspawn import timing
from pytest_nspawn.errors import ConfigError
from pytest_nspawn.machine.context import Context, hidden
from pytest_nspawn.model import NetworkName, parse_size
from pytest_nspawn.timing import Seconds

__tracebackhide__ = hidden


class Link:
    """One interface of a node, as the cable that it hangs on. What is done to it stays over restarts of the node."""

    def __init__(self, context: Context, network: NetworkName, ifname: str) -> None:
        self.network = network
        self.ifname = ifname
        self._context = context

    def __repr__(self) -> str:
        return f"<Link {self.ifname} of {self._context.node} to network {self.network!r}>"

    def down(self) -> None:
        """Pull the cable: the node sees its link go down, and connections get no answers."""
        self._change("unplugging", up=False)

    def up(self) -> None:
        """Plug it in again."""
        self._change("plugging", up=True)

    def set(
        self,
        *,
        delay: Seconds | None = None,
        loss: float | None = None,
        rate: str | int | None = None,
    ) -> None:
        """Impair what comes to the node: each packet by `delay`, a share of `loss` (0 to 1), `rate` in bytes a second.

        What is not given is not impaired; without any, nothing is. Raises HostError where the kernel cannot do it.
        """
        netem: dict[str, Any] = {}
        if delay is not None:
            netem["delay"] = round(timing.seconds(delay) * 1e6)
        if loss is not None:
            if not (math.isfinite(loss) and 0 <= loss <= 1):
                hint = "give a share from 0 to 1, as 0.05 for one in twenty"
                raise ConfigError(
                    problem="no such loss of packets", node=self._context.node, value=loss, hint=hint
                )
            netem["loss"] = loss * 100
        if rate is not None:
            netem["rate"] = parse_size(rate) if isinstance(rate, str) else rate
        self._change("impairing", netem=netem)

    def _change(self, verb: str, **how: object) -> None:
        _await_links(self._context)
        with self._context.nested(f"{verb} {self.ifname}"):
            self._context.container.impair([self.ifname], **how)


class Links(Mapping[NetworkName, Link]):
    """A node's links by network name or VLAN number."""

    def __init__(self, context: Context, interfaces: Sequence[tuple[NetworkName, str]]) -> None:
        self._context = context
        self._links = {network: Link(context, network, ifname) for network, ifname in interfaces}

    def __getitem__(self, network: NetworkName) -> Link:
        return self._links[network]

    def __iter__(self) -> Iterator[NetworkName]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def __repr__(self) -> str:
        return f"<Links of {self._context.node}: {', '.join(map(str, self))}>"

    def change_all(self, verb: str, *, up: bool) -> None:
        """Pull or plug all of them at once."""
        _await_links(self._context)
        if self._links:
            with self._context.nested(verb):
                self._context.container.impair([link.ifname for link in self._links.values()], up=up)


def _await_links(context: Context) -> None:
    """Wait until the node has its links, which a boot may be waiting for. Raises NotRunningError."""
    container = context.container
    if not container.boots:
        container.start()
    _ = container.leader_pid  # they are asked for as soon as there is one
