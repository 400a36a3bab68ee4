"""Parity with the NixOS test driver, on real nodes: files, ports, sockets, logs and state."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from pytest_nspawn import Machine
from pytest_nspawn.errors import ConfigError, RequestedAssertionFailed, TimeoutExceeded

LISTEN = "python3 -m http.server --bind 127.0.0.1 {port} >/dev/null 2>&1 &"
UNIX = (
    "python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_{kind}); "
    's.bind("{path}"); {listen}time.sleep(1000)\' >/dev/null 2>&1 &'
)


def later(machine: Machine, command: str) -> None:
    machine.succeed(f"(sleep 0.4; {command}) >/dev/null 2>&1 &")


def test_wait_for_file(machine: Machine) -> None:
    later(machine, "touch /tmp/awaited")
    machine.wait_for_file("/tmp/awaited", timeout=60)
    machine.wait_for_file("/tmp/await*")


def test_wait_for_file_fails_times_out(machine: Machine) -> None:
    with pytest.raises(TimeoutExceeded, match="/tmp/absent"):
        machine.wait_for_file("/tmp/absent", timeout=0.3)


def test_wait_for_open_port(machine: Machine) -> None:
    later(machine, f"exec {LISTEN.format(port=4000).removesuffix(' &')}")
    machine.wait_for_open_port(4000, timeout=60)
    machine.wait_for_open_port(4000, "127.0.0.1")


def test_wait_for_open_port_of_another_node(machine: Machine, other: Machine) -> None:
    other.succeed("python3 -m http.server 4500 >/dev/null 2>&1 &")
    machine.wait_for_open_port(4500, addr="other", timeout=60)


def test_wait_for_open_port_fails_times_out(machine: Machine) -> None:
    with pytest.raises(TimeoutExceeded, match="4001"):
        machine.wait_for_open_port(4001, timeout=0.3)


def test_wait_for_closed_port(machine: Machine) -> None:
    machine.succeed(LISTEN.format(port=4002))
    machine.wait_for_open_port(4002, timeout=60)
    later(machine, "pkill -f 'server --bind 127.0.0.1 400[2]'")
    machine.wait_for_closed_port(4002, timeout=60)
    machine.wait_for_closed_port(4999)


def test_wait_for_closed_port_fails_times_out(machine: Machine) -> None:
    machine.succeed(LISTEN.format(port=4003))
    machine.wait_for_open_port(4003, timeout=60)
    with pytest.raises(TimeoutExceeded, match="it is open"):
        machine.wait_for_closed_port(4003, timeout=0.3)


def test_wait_for_open_unix_socket(machine: Machine) -> None:
    machine.succeed(UNIX.format(kind="STREAM", path="/run/stream", listen="s.listen(); "))
    machine.succeed(UNIX.format(kind="DGRAM", path="/run/datagram", listen=""))
    machine.wait_for_open_unix_socket("/run/stream", timeout=60)
    machine.wait_for_open_unix_socket("/run/datagram", is_datagram=True, timeout=60)


def test_wait_for_open_unix_socket_fails_times_out(machine: Machine) -> None:
    machine.succeed("touch /run/no-socket")
    for path in ("/run/absent", "/run/no-socket"):
        with pytest.raises(TimeoutExceeded, match=path):
            machine.wait_for_open_unix_socket(path, timeout=0.3)


def test_copy_from_host(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "leaf").write_text("green")
    (tmp_path / "tree" / "tool").write_text("#!/bin/sh\necho works\n")
    (tmp_path / "tree" / "tool").chmod(0o755)
    machine.copy_from_host(str(tmp_path / "tree" / "deep" / "leaf"), "/root/copied/leaf")
    assert machine.succeed("cat /root/copied/leaf") == "green"
    machine.copy_from_host(str(tmp_path / "tree"), "/root/tree")
    assert machine.succeed("cat /root/tree/deep/leaf; /root/tree/tool") == "greenworks\n"


def test_copy_from_host_fails(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        machine.copy_from_host(str(tmp_path / "absent"), "/root/absent")


def test_copy_from_host_via_shell(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(bytes(range(256)) * 1000)
    machine.copy_from_host_via_shell(str(tmp_path / "bytes"), "/root/new/bytes")
    assert machine.read_bytes("/root/new/bytes") == bytes(range(256)) * 1000


def test_copy_from_host_via_shell_fails(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"irectory|regular file"):
        machine.copy_from_host_via_shell(str(tmp_path), "/root/directory")


def test_copy_from_machine(machine: Machine) -> None:
    machine.succeed("mkdir -p /root/out/deep", "echo leaf > /root/out/deep/leaf")
    machine.copy_from_machine("/root/out")
    machine.copy_from_machine("/root/out/deep/leaf", "below/it")
    assert (machine.out_dir / "out" / "deep" / "leaf").read_text() == "leaf\n"
    assert (machine.out_dir / "below" / "it" / "leaf").read_text() == "leaf\n"


def test_copy_from_machine_fails(machine: Machine) -> None:
    with pytest.raises(FileNotFoundError):
        machine.copy_from_machine("/root/absent")


def test_copy_from_vm(machine: Machine) -> None:
    machine.succeed("echo old > /root/old")
    machine.copy_from_vm("/root/old", target_dir="old-name")
    assert (machine.out_dir / "old-name" / "old").read_text() == "old\n"


def test_forward_port(machine: Machine) -> None:
    machine.succeed("echo page > /root/page", "python3 -m http.server --directory /root 80 >/dev/null 2>&1 &")
    machine.wait_for_open_port(80, timeout=60)
    port = machine.forward_port(host_port=0)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        assert b"200 OK" in connection.recv(4096)


def test_forward_port_fails(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="in use"):
        machine.forward_port(taken.getsockname()[1], 80)


def test_log(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        machine.log("a remark")
    assert "machine: a remark" in caplog.text


def test_log_serial(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        machine.log_serial("a line of the console")
    assert "machine: console: a line of the console" in caplog.text


def test_nested(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), machine.nested("the block", {"key": "value"}):
        machine.log("inside")
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:2] == ["machine: the block", "machine: inside"]
    assert "finished: the block" in messages[2]


def test_nested_fails(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), pytest.raises(ValueError, match="inside"), machine.nested("the block"):
        raise ValueError("inside")
    assert "failed: the block" in caplog.text


def test_run_callbacks(machine: Machine) -> None:
    calls = []
    machine.callbacks.append(lambda: calls.append(1))
    try:
        machine.run_callbacks()
        assert calls == [1]
        machine.succeed("true")
        assert len(calls) >= 2
    finally:
        machine.callbacks.pop()


def test_run_callbacks_fails(machine: Machine) -> None:
    def refuse() -> None:
        raise RequestedAssertionFailed(message="enough")

    machine.callbacks.append(refuse)
    try:
        for act in (machine.run_callbacks, lambda: machine.succeed("true"), lambda: machine.sleep(5)):
            with pytest.raises(RequestedAssertionFailed, match="enough"):
                act()
    finally:
        machine.callbacks.pop()


def test_a_callback_ends_whatever_runs(machine: Machine) -> None:
    bad = time.monotonic() + 0.4

    def watch() -> None:
        if time.monotonic() > bad:
            raise RequestedAssertionFailed(message="enough")

    machine.callbacks.append(watch)
    try:
        for act in (
            lambda: machine.succeed("sleep 60; touch /tmp/slept"),
            lambda: machine.succeed("while true; do echo noise; done"),
            lambda: machine.wait_for_file("/absent"),
            lambda: machine.wait_for_open_port(4998),
            lambda: machine.wait_for_console_text("never printed"),
            machine.wait_for_shutdown,
            lambda: machine.wait_for_journal("never logged"),
            lambda: machine.wait_until_succeeds("false"),
            lambda: machine.sleep(60),
        ):
            bad = time.monotonic() + 0.2
            with pytest.raises(RequestedAssertionFailed, match="enough"):
                act()
    finally:
        machine.callbacks.pop()
    assert not machine.exists("/tmp/slept")


def test_cleanup_statedir(machine: Machine) -> None:
    (machine.state_dir / "file").write_text("state")
    machine.cleanup_statedir()
    assert list(machine.state_dir.iterdir()) == []


def test_cleanup_statedir_fails(machine: Machine) -> None:
    directory = machine.state_dir
    machine.cleanup_statedir()
    assert not directory.exists()


def test_attributes(machine: Machine, other: Machine) -> None:
    assert machine.name == "machine"
    assert machine.callbacks == []
    assert machine.keep_machine_state is False
    assert machine.state_dir.is_dir()
    assert machine.state_dir != other.state_dir
    assert machine.tmp_dir.is_dir()
    assert machine.out_dir.is_dir()
    (machine.shared_dir / "parcel").write_text("shared")
    assert other.succeed("cat /tmp/shared/parcel") == "shared"
