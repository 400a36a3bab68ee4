"""Bridges and veths as netlink requests, in the network namespace that the process is in.

The only importer of pyroute2. One socket is kept, and each veth is one request (peer, namespace, master and state in
it): that is four to ten times as fast as looking things up first. rtnetlink(7), veth(4).
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING, Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

if TYPE_CHECKING:
    from types import TracebackType

_IFA_F_NODAD = 0x02
_ROOT = 0xFFFFFFFF
"""TC_H_ROOT: what leaves an interface (linux/pkt_sched.h)."""


class WiresError(OSError):
    """Raised when the kernel refuses a link, a bridge or an address; says which, and how to mend it where known."""


class Wires:
    """A cluster's side of its networks. A context manager over its netlink socket."""

    def __init__(self) -> None:
        self._netlink = IPRoute()
        self._indexes: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._netlink.link("set", index=1, state="up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._netlink.close()

    def add_bridges(self, bridges: list[dict[str, Any]]) -> None:
        """Make a bridge a network, with the host side's addresses (CIDR text) where it has some."""
        for bridge in bridges:
            name = bridge["ifname"]
            self._do(
                f"make the bridge {name}",
                "link",
                "add",
                ifname=name,
                kind="bridge",
                br_stp_state=0,
                br_forward_delay=0,
                # A bridge without an address of its own takes that of a port, and changes it as nodes come and go.
                address=bridge["mac"],
                state="up",
                **({"mtu": bridge["mtu"]} if bridge["mtu"] else {}),
            )
            self._indexes[name] = self._netlink.link_lookup(ifname=name)[0]
            for address in bridge["addresses"]:
                host, _, length = address.partition("/")
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                self._do(
                    f"give {name} the address {address}",
                    "addr",
                    "add",
                    index=self._indexes[name],
                    address=host,
                    prefixlen=int(length),
                    family=family,
                    **({"flags": _IFA_F_NODAD} if family == socket.AF_INET6 else {}),
                )

    def add_links(self, links: list[dict[str, Any]], leader: int) -> None:
        """Make a veth a link: one end on its bridge here, the other in the namespace of the process `leader`."""
        for link in links:
            try:
                self._add_link(link, leader)
            except WiresError as error:
                if error.errno != errno.EEXIST:
                    raise
                # Of the boot before: the kernel takes a dead node's namespace apart in its own time.
                self._remove(link["host_ifname"])
                self._add_link(link, leader)

    def _add_link(self, link: dict[str, Any], leader: int) -> None:
        size = {"mtu": link["mtu"]} if link["mtu"] else {}
        self._do(
            f"make the link {link['ifname']}",
            "link",
            "add",
            ifname=link["host_ifname"],
            kind="veth",
            master=self._indexes[link["bridge"]],
            state="up" if link.get("up", True) else "down",
            peer={"ifname": link["ifname"], "address": link["mac"], "net_ns_pid": leader, **size},
            **size,
        )

    def _remove(self, name: str) -> None:
        for index in self._netlink.link_lookup(ifname=name):
            with contextlib.suppress(NetlinkError):  # it went by itself meanwhile
                self._netlink.link("del", index=index)

    def change_link(self, name: str, *, up: bool | None = None, netem: dict[str, Any] | None = None) -> None:
        """Pull or plug a link's end here, or let what goes to the node through a network emulator (tc-netem(8)).

        An empty `netem` takes the emulator away.
        """
        found = self._netlink.link_lookup(ifname=name)
        if not found:
            raise WiresError(errno.ENODEV, f"there is no link {name}: the node is not running")
        index = found[0]
        if up is not None:
            what = f"{'plug' if up else 'unplug'} the link {name}"
            self._do(what, "link", "set", index=index, state="up" if up else "down")
        if netem is None:
            return
        try:
            self._do(f"reset the link {name}", "tc", "del", index=index, parent=_ROOT)
        except WiresError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):  # it had no emulator
                raise
        if netem:
            self._do(f"impair the link {name}", "tc", "add", kind="netem", index=index, parent=_ROOT, **netem)

    def _do(self, what: str, method: str, *arguments: str, **keywords: Any) -> None:
        try:
            getattr(self._netlink, method)(*arguments, **keywords)
        except NetlinkError as error:
            raise WiresError(error.code, f"cannot {what}: {error.args[-1]}") from error
