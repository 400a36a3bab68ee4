"""Ports of the machine that lead to ports of a node: a listening socket in the test process, and a relay a connection."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
from collections.abc import Callable

from pytest_nspawn.errors import ConfigError, MachineError
from pytest_nspawn.machine.context import Context, hidden

__tracebackhide__ = hidden

_BUFFER = 1 << 20
"""Bytes that one call moves: with fewer, the interpreter's share of the work shows."""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for a close that tells the peer of a failure (socket(7))."""

_UNUSABLE = {
    errno.EADDRINUSE: "port {port} of this machine is in use",
    errno.EACCES: "port {port} of this machine is for root only",
}


class Forward:
    """One forwarded port. Each connection asks for the boot that runs then: it outlives restarts of the node."""

    def __init__(self, context: Context, host_port: int, guest_port: int, address: str) -> None:
        self._context = context
        self._guest_port = guest_port
        self._address = address
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._listener = _listen(context.node, host_port)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept, f"port {self.port}")

    def close(self) -> None:
        """Stop listening and cut the connections. Idempotent."""
        with self._lock:
            self._closed = True
            sockets = [self._listener, *self._open]
        for sock in sockets:
            # Wakes the thread that uses it, which closes it.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._listener:
            while not self._closed:
                try:
                    client, _ = self._listener.accept()
                except OSError as error:
                    if error.errno in (errno.EINVAL, errno.EBADF):
                        return
                    # Descriptors may be short just now, or the client is gone already (accept(2)).
                    self._context.log.warning("forwarded port %d: %s", self.port, error)
                    threading.Event().wait(0.05)
                    continue
                self._start(lambda: self._serve(client), f"connection to port {self.port}")  # noqa: B023 (started at once)

    def _serve(self, client: socket.socket) -> None:
        with client:
            if not self._keep(client):
                return
            try:
                server = self._context.shell().connect_tcp(self._guest_port, self._address)
            except (OSError, MachineError) as error:
                self._context.log.info("forwarded port %d: %s", self.port, error)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._drop(client)
                return
            with server:
                if self._keep(server):
                    for sock in (client, server):
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    back = self._start(lambda: _pump(server, client), f"answers of port {self.port}")
                    _pump(client, server)
                    back.join()
                self._drop(server)
            self._drop(client)

    def _keep(self, sock: socket.socket) -> bool:
        with self._lock:
            if not self._closed:
                self._open.add(sock)
            return not self._closed

    def _drop(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.discard(sock)

    def _start(self, work: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"{name} of {self._context.node}", daemon=True)
        thread.start()
        return thread


def _listen(node: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(
            problem="no such port", node=node, value=port, hint="a port is a number from 0 to 65535"
        )
    listener = socket.socket()
    try:
        # A port whose last connections only linger is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        problem = _UNUSABLE.get(error.errno or 0)
        if problem is None:
            raise
        raise ConfigError(
            problem=f"forward_port: {problem.format(port=port)}",
            node=node,
            value=port,
            hint="choose another, or host_port=0 to have a free one chosen",
        ) from None
    return listener


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Move bytes until one side ends, and pass that end on; the other direction may go on."""
    buffer = memoryview(bytearray(_BUFFER))
    try:
        while count := source.recv_into(buffer):
            target.sendall(buffer[:count])
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # A connection that breaks on one side is broken on the other.
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sock.shutdown(socket.SHUT_RDWR)
