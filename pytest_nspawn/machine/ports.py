"""Ports and sockets of a node: waits for them, connections to them, forwards."""

from __future__ import annotations

import socket
import threading

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.machine.context import Context, hidden
from pytest_nspawn.machine.files import NodePath, rooted
from pytest_nspawn.machine.forward import Forward
from pytest_nspawn.timing import Seconds

__tracebackhide__ = hidden

_ANSWER = 1.0
"""Seconds that one attempt has: a firewall may drop it silently, and be opened meanwhile."""


class Ports:
    """Connects to one node's sockets from inside it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._forwards: list[Forward] = []
        self._lock = threading.Lock()

    def wait_open(self, port: int, addr: str, timeout: Seconds | None) -> None:
        """Wait until somebody listens on a TCP port."""
        self._check(port)
        last = ""

        def attempt(_is_last: bool) -> bool:
            nonlocal last
            last = self._try_tcp(port, addr)
            return not last

        what = f"waiting for TCP port {port} on {addr}"
        self._context.retry(attempt, timeout=timeout, what=what, last=lambda: last)

    def wait_closed(self, port: int, addr: str, timeout: Seconds | None) -> None:
        """Wait until nobody listens on a TCP port."""
        self._check(port)
        what = f"waiting for TCP port {port} on {addr} to be closed"
        self._context.retry(
            lambda _is_last: bool(self._try_tcp(port, addr)),
            timeout=timeout,
            what=what,
            last=lambda: "it is open",
        )

    def wait_unix(self, addr: NodePath, timeout: Seconds | None, *, datagram: bool) -> None:
        """Wait until somebody listens on a Unix socket."""
        kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
        path = rooted(addr)
        last = ""

        def attempt(_is_last: bool) -> bool:
            nonlocal last
            try:
                self._context.shell().connect_unix(path, kind, timeout=_ANSWER).close()
            except OSError as error:
                last = str(error)
                return False
            return True

        what = f"waiting for the Unix {'datagram ' if datagram else ''}socket {path!r}"
        self._context.retry(attempt, timeout=timeout, what=what, last=lambda: last)

    def connect(self, port: int, addr: str) -> socket.socket:
        """A TCP socket of the test process, connected from inside the node. Raises OSError as connect(2)."""
        self._check(port)
        return self._context.shell().connect_tcp(port, addr)

    def forward(self, host_port: int, guest_port: int, addr: str) -> int:
        """Let a port of 127.0.0.1 lead to one of the node; gives the port. Raises ConfigError where it is in use."""
        self._check(guest_port)
        forward = Forward(self._context, host_port, guest_port, addr)
        with self._lock:
            self._forwards.append(forward)
        return forward.port

    def close(self) -> None:
        """End all forwards. Idempotent."""
        with self._lock:
            forwards, self._forwards = self._forwards, []
        for forward in forwards:
            forward.close()

    def _try_tcp(self, port: int, addr: str) -> str:
        """Why a port is not open; empty where it is."""
        try:
            self._context.shell().connect_tcp(port, addr, timeout=_ANSWER).close()
        except OSError as error:
            return str(error)
        return ""

    def _check(self, port: int) -> None:
        if not 1 <= port <= 65535:
            hint = "a port is a number from 1 to 65535"
            raise ConfigError(problem="no such port", node=self._context.node, value=port, hint=hint)
