"""Packets of a network: every frame that goes over its bridge, kept in memory and written as tcpdump does.

with nodes.networks[1].capture("http.pcap") as capture:
    client.succeed("curl http://server/")
assert any(b"GET /" in frame for frame in capture.frames)
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pytest_nspawn.errors import TimeoutExceeded
from pytest_nspawn.timing import Seconds, seconds

if TYPE_CHECKING:
    import ipaddress

    from pytest_nspawn.model import Network, NetworkName
    from pytest_nspawn.naming import Bridge
    from pytest_nspawn.sandbox import Sandbox

_FRAME = 1 << 18
"""Bytes of the longest frame: offloads make some longer than any cable takes."""

_ETHERNET = 1  # LINKTYPE_ETHERNET (pcap-savefile(5))
_NANOSECONDS = 0xA1B23C4D
_TIMESTAMP = 35  # SO_TIMESTAMPNS (socket(7))


class Capture:
    """The frames of one network, from the moment it was made; in a `with`, until its end."""

    def __init__(self, packets: socket.socket, network: NetworkName, path: Path | None) -> None:
        self.network = network
        self.path = path
        self._packets = packets
        self._frames: list[bytes] = []
        self._changed = threading.Condition()
        self._file: IO[bytes] | None = None
        if path is not None:
            self._file = path.open("wb", buffering=0)
            self._file.write(struct.pack("=IHHiIII", _NANOSECONDS, 2, 4, 0, 0, _FRAME, _ETHERNET))
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._read, name=f"capture of network {network}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Capture of network {self.network!r}: {len(self.frames)} frames>"

    @property
    def frames(self) -> list[bytes]:
        """The Ethernet frames so far, oldest first."""
        with self._changed:
            return list(self._frames)

    def wait_for(self, wanted: Callable[[bytes], bool], timeout: Seconds = 10.0) -> bytes:
        """Wait for a frame, old or new, of which `wanted` is true; gives it. Raises TimeoutExceeded."""
        begin, limit, looked = time.monotonic(), seconds(timeout), 0
        with self._changed:
            while True:
                for frame in self._frames[looked:]:
                    if wanted(frame):
                        return frame
                looked = len(self._frames)
                left = begin + limit - time.monotonic()
                if left <= 0 or not self._changed.wait_for(lambda: len(self._frames) > looked, left):  # noqa: B023 (at once)
                    what = f"waiting for a frame on network {self.network!r}"
                    raise TimeoutExceeded(
                        what=what,
                        elapsed=time.monotonic() - begin,
                        limit=limit,
                        last=f"{looked} frames were captured",
                    ) from None

    def close(self) -> None:
        """Take what is there, and stop. Idempotent."""
        if self._wake < 0:
            return
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        self._wake = -1
        self._packets.close()
        if self._file is not None:
            self._file.close()

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._packets, select.POLLIN)
        self._packets.setblocking(False)
        ending = False
        while not ending:
            ending = any(fd == self._wake for fd, _event in poll.poll())
            # A network that is gone ends it, too.
            with contextlib.suppress(BlockingIOError):
                try:
                    while True:
                        self._take(*self._packets.recvmsg(_FRAME, socket.CMSG_SPACE(16))[:2])
                except BlockingIOError:
                    raise
                except OSError:
                    ending = True

    def _take(self, frame: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        stamp = next((data for _level, kind, data in ancillary if kind == _TIMESTAMP), None)
        now = struct.unpack("qq", stamp) if stamp is not None else divmod(time.time_ns(), 1_000_000_000)
        if self._file is not None:
            self._file.write(struct.pack("=IIII", now[0], now[1], len(frame), len(frame)) + frame)
        with self._changed:
            self._frames.append(frame)
            self._changed.notify_all()


class LiveNetwork:
    """A network of a booted cluster: what was declared, where it is, and what goes over it."""

    def __init__(
        self, network: Network, bridge: Bridge, sandbox: Sandbox, cluster: int, out_dir: Path
    ) -> None:
        self.network = network
        self.name = bridge.network
        self.vlan = bridge.vlan
        self._bridge = bridge
        self._sandbox = sandbox
        self._cluster = cluster
        self._out_dir = out_dir

    def __repr__(self) -> str:
        return f"<LiveNetwork {self.name!r}>"

    @property
    def subnet4(self) -> ipaddress.IPv4Network | None:
        """The subnet that was declared."""
        return self.network.subnet4

    @property
    def subnet6(self) -> ipaddress.IPv6Network | None:
        """The subnet that was declared."""
        return self.network.subnet6

    @property
    def host(self) -> bool:
        """Whether the host side has addresses in it."""
        return self.network.host

    @property
    def mtu(self) -> int | None:
        """The MTU that was declared, in bytes."""
        return self.network.mtu

    @contextlib.contextmanager
    def capture(self, path: str | os.PathLike[str] | None = None) -> Iterator[Capture]:
        """Capture every frame while the block runs; `path` is a file for tcpdump and Wireshark, below `out_dir`."""
        reply = self._sandbox.call("capture", cluster=self._cluster, ifname=self._bridge.ifname)
        packets = socket.socket(fileno=reply.fds[0])
        try:
            capture = Capture(packets, self.name, self._out_dir / path if path is not None else None)
        except BaseException:
            packets.close()
            raise
        try:
            yield capture
        finally:
            capture.close()
