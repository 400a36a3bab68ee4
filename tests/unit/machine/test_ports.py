from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_nspawn.errors import ConfigError, NotRunningError, TimeoutExceeded
from pytest_nspawn.machine import Machine
from tests.waiting import wait_for

from .fakes import LocalContainer, free_port, later


@contextlib.contextmanager
def server(handle: Callable[[socket.socket], object], port: int = 0) -> Iterator[int]:
    """A server in the node; gives its port."""
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(target=_handle, args=(handle, sock), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _handle(handle: Callable[[socket.socket], object], sock: socket.socket) -> None:
    with sock:
        handle(sock)


def answer_at_end(sock: socket.socket) -> None:
    """Read to the end of file, and only then answer: works over what passes a half-closed connection on."""
    data = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    sock.sendall(b"got %d" % len(data))


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def test_wait_for_open_port(machine: Machine) -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        later(0.2, lambda: stack.enter_context(server(read_all, port)))
        machine.wait_for_open_port(port, timeout=60)
        machine.wait_for_open_port(port, "127.0.0.1", 0)


def test_wait_for_open_port_says_why(machine: Machine) -> None:
    with pytest.raises(TimeoutExceeded) as caught:
        machine.wait_for_open_port(free_port(), timeout=0.1)
    assert "refused" in str(caught.value)


def test_wait_for_closed_port(machine: Machine) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    later(0.2, listener.close)
    machine.wait_for_closed_port(listener.getsockname()[1], timeout=60)
    with server(read_all) as port, pytest.raises(TimeoutExceeded, match="it is open"):
        machine.wait_for_closed_port(port, timeout=0.1)


def test_waits_for_ports_end_with_the_node(machine: Machine, container: LocalContainer) -> None:
    later(0.1, container.kill)
    with pytest.raises(NotRunningError):
        machine.wait_for_open_port(free_port())
    with pytest.raises(NotRunningError):
        machine.wait_for_closed_port(1)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_such_port(machine: Machine, port: int) -> None:
    with pytest.raises(ConfigError, match="no such port"):
        machine.wait_for_open_port(port)
    with pytest.raises(ConfigError, match="no such port"):
        machine.forward_port(0, port)


@pytest.mark.parametrize("datagram", [False, True])
def test_wait_for_open_unix_socket(machine: Machine, tmp_path: Path, datagram: bool) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM) as sock:

        def listen() -> None:
            sock.bind(str(path))
            if not datagram:
                sock.listen()

        later(0.1, listen)
        machine.wait_for_open_unix_socket(str(path), is_datagram=datagram, timeout=60)
        with pytest.raises(TimeoutExceeded):
            machine.wait_for_open_unix_socket(str(path), is_datagram=not datagram, timeout=0.1)


def test_connect_tcp(machine: Machine) -> None:
    with server(answer_at_end) as port, machine.connect_tcp(port) as sock:
        sock.sendall(b"x" * 10)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"got 10"
    with pytest.raises(ConnectionRefusedError):
        machine.connect_tcp(free_port())


def test_forward_port_passes_all_on(machine: Machine) -> None:
    with server(answer_at_end) as port:
        host_port = machine.forward_port(0, port)
        assert host_port > 0
        with socket.create_connection(("127.0.0.1", host_port)) as sock:
            sock.sendall(b"x" * 10_000_000)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"got 10000000"


def test_forward_port_takes_many_connections(machine: Machine) -> None:
    with server(answer_at_end) as port, contextlib.ExitStack() as stack:
        host_port = machine.forward_port(0, port)
        socks = [stack.enter_context(socket.create_connection(("127.0.0.1", host_port))) for _ in range(20)]
        for number, sock in enumerate(socks):
            sock.sendall(b"x" * number)
            sock.shutdown(socket.SHUT_WR)
        assert [read_all(sock) for sock in socks] == [b"got %d" % number for number in range(20)]


def test_forward_port_passes_an_early_end_of_the_server_on(machine: Machine) -> None:
    with server(lambda sock: sock.sendall(b"bye")) as port:
        host_port = machine.forward_port(0, port)
        with socket.create_connection(("127.0.0.1", host_port)) as sock:
            assert read_all(sock) == b"bye"


def test_forward_port_to_nobody_is_reset(machine: Machine) -> None:
    host_port = machine.forward_port(0, free_port())
    with socket.create_connection(("127.0.0.1", host_port)) as sock, pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_forward_port_outlives_a_restart(machine: Machine, container: LocalContainer) -> None:
    with server(answer_at_end) as port:
        host_port = machine.forward_port(0, port)
        machine.crash()
        with socket.create_connection(("127.0.0.1", host_port)) as sock, pytest.raises(ConnectionResetError):
            sock.recv(1)
        machine.start()
        with socket.create_connection(("127.0.0.1", host_port)) as sock:
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"got 0"


def test_forward_port_in_use(machine: Machine) -> None:
    with server(read_all) as port, pytest.raises(ConfigError) as caught:
        machine.forward_port(port, 80)
    assert caught.value.node == "server"
    assert re.search(rf"port {port} of this machine is in use.*host_port=0", str(caught.value))


def test_forward_port_ends_with_the_machine(machine: Machine) -> None:
    with server(answer_at_end) as port:
        host_port = machine.forward_port(0, port)
        with socket.create_connection(("127.0.0.1", host_port)) as sock:
            sock.sendall(b"x")
            machine.release()
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(100) in (b"", b"got 1")
        wait_for(lambda: _refuses(host_port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", host_port))
    machine.release()
    assert not [
        thread
        for thread in threading.enumerate()
        if f"port {host_port} " in thread.name and not _ends(thread)
    ]


def _refuses(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return False
    return True


def _ends(thread: threading.Thread) -> bool:
    thread.join(60)
    return not thread.is_alive()
