"""The processes that speak netlink: a template that has loaded pyroute2, and a fork of it a cluster.

Each cluster has a network namespace of its own, so that clusters that live at the same time may use the same
addresses; it ends with its process. Loading pyroute2 takes longer than starting systemd-nspawn: the template loads it
on another processor while the first node boots.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_nspawn import wire
from pytest_nspawn.inside import linux

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_nspawn.network import Wires

    Answered = Callable[[str | None, int | None, list[int]], None]


# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h; some have no name in Python.
_ALL_PROTOCOLS, _SOL_PACKET, _ADD_MEMBERSHIP, _PROMISCUOUS, _TIMESTAMPS = 0x0003, 263, 1, 1, 35
_CAPTURE_BUFFER = 8 << 20
"""Bytes of frames that wait to be read; the kernel gives no more than net.core.rmem_max."""
_ENDED = "the process that speaks netlink has ended"


class Client:
    """A cluster's wires, seen from init: requests go out, answers come in their order."""

    def __init__(self, template: socket.socket) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            wire.send(template, {}, [theirs.fileno()])
        self._waiting: list[Answered] = []

    def fileno(self) -> int:
        """What to watch for answers."""
        return self._socket.fileno()

    def ask(self, request: dict[str, Any], answered: Answered) -> None:
        """Send a request; `answered` gets None, or what went wrong and its number (errno(3)), and descriptors."""
        try:
            wire.send(self._socket, request)
        except (BrokenPipeError, ConnectionResetError):
            answered(_ENDED, errno.EPIPE, [])
        else:
            self._waiting.append(answered)

    def answered(self) -> bool:
        """Read one answer and hand it on; False at the end of file, which fails all that wait."""
        try:
            received = wire.receive(self._socket)
        except OSError:  # it ended with requests unread
            received = None
        if received is None:
            waiting, self._waiting = self._waiting, []
            for answer in waiting:
                answer(_ENDED, errno.EPIPE, [])
            return False
        message, fds = received
        self._waiting.pop(0)(message["problem"], message["errno"], fds)
        wire.close_all(fds)
        return True

    def close(self) -> None:
        """End the wires, their namespace and every link in it."""
        self._socket.close()


def start_template(paths: list[str], in_child: Callable[[], None]) -> socket.socket:
    """Fork the process that loads pyroute2 from `paths` and forks the others."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        try:
            in_child()
            ours.close()
            _serve_template(theirs, paths)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a cluster that ends while its links are made waits for no answer
        except BaseException:  # noqa: BLE001 (told, and the process ends)
            traceback.print_exc()
        finally:
            os._exit(1)  # never back into init: its callers would take our faults for its own
    theirs.close()
    return ours


def _serve_template(control: socket.socket, paths: list[str]) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the forks
    sys.path.extend(paths)
    from pytest_nspawn.network import Wires

    while (received := wire.receive(control)) is not None:
        _message, fds = received
        if os.fork() == 0:
            control.close()
            _serve(socket.socket(fileno=fds[0]), Wires)
        wire.close_all(fds)
    os._exit(0)


def _serve(control: socket.socket, make: type[Wires]) -> NoReturn:
    linux.unshare(linux.CLONE_NEWNET)
    with make() as wires:
        while (received := wire.receive(control)) is not None:
            request = received[0]
            problem, number = None, None
            sockets: list[socket.socket] = []
            try:
                if "bridges" in request:
                    wires.add_bridges(request["bridges"])
                elif "capture" in request:
                    sockets.append(_packet_socket(request["capture"]))
                elif "change" in request:
                    for name, change in request["change"].items():
                        wires.change_link(name, **change)
                else:
                    _without_duplicate_detection(request["leader"])
                    wires.add_links(request["links"], request["leader"])
            except OSError as error:
                problem, number = str(error), error.errno
            wire.send(control, {"problem": problem, "errno": number}, [each.fileno() for each in sockets])
            for each in sockets:
                each.close()
    os._exit(0)


def _packet_socket(ifname: str) -> socket.socket:
    """A socket that gets every frame of a bridge, also those between others (packet(7))."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    try:
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CAPTURE_BUFFER)
        packets.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)
        packets.bind((ifname, 0))
        promiscuous = struct.pack("iHH8s", socket.if_nametoindex(ifname), _PROMISCUOUS, 0, b"")
        packets.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, promiscuous)
    except OSError:
        packets.close()
        raise
    return packets


def _without_duplicate_detection(leader: int) -> None:
    """Switch IPv6 duplicate address detection off for links to come: it holds a node's boot for over a second.

    Addresses here are numbered by the topology, so there is nothing to detect (Documentation/networking/ip-sysctl).
    """
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{leader}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.setns(theirs, linux.CLONE_NEWNET)
        switch_off_duplicate_detection()
    finally:
        linux.setns(own, linux.CLONE_NEWNET)
        os.close(own)
        os.close(theirs)


def switch_off_duplicate_detection() -> None:
    """The same for the namespace that this process is in; nothing where the kernel has no IPv6."""
    for group in ("all", "default"):
        for name in ("accept_dad", "dad_transmits"):
            path = f"/proc/sys/net/ipv6/conf/{group}/{name}"
            if os.path.exists(path):
                with open(path, "w", encoding="ascii") as file:
                    file.write("0")
