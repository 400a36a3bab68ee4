"""Files, sockets, console, journal and power of a node."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nspawn import BootError, Machine, NspawnError
from pytest_nspawn.cluster import Engine, EngineOptions
from pytest_nspawn.container import starting_for
from pytest_nspawn.errors import RequestedAssertionFailed
from pytest_nspawn.model import Node, Topology

ECHO = """\
[Service]
ExecStart=/usr/bin/python3 -u -c 'import socketserver as s; \\
    H = type("H", (s.StreamRequestHandler,), {"handle": lambda h: h.wfile.write(b"echo " + h.rfile.readline())}); \\
    s.ThreadingTCPServer.allow_reuse_address = True; s.ThreadingTCPServer(("127.0.0.1", 7000), H).serve_forever()'
"""


@pytest.fixture(scope="module")
def machine(engine: Engine) -> Iterator[Machine]:
    with engine.boot(Topology({"machine": Node(units={"echo.service": ECHO})})) as nodes:
        yield nodes["machine"]


def test_files_are_read_and_written_without_a_shell(machine: Machine) -> None:
    machine.write_text("/root/text", "grüße\n")
    machine.write_bytes("/root/bytes", bytes(range(256)))
    assert machine.read_text("/root/text") == "grüße\n"
    assert machine.read_bytes("/root/bytes") == bytes(range(256))
    assert machine.succeed("cat /root/text; stat -c %U /root/text") == "grüße\nroot\n"
    assert machine.exists("/root/text")
    assert not machine.exists("/root/absent")
    with pytest.raises(FileNotFoundError):
        machine.read_text("/root/absent")
    with pytest.raises(OSError, match="regular"):
        machine.read_bytes("/dev/zero")


def test_links_of_a_node_lead_nowhere_outside_it(machine: Machine, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the machine")
    machine.succeed(f"ln -sfn {secret} /root/absolute; ln -sfn ../../../../..{secret} /root/relative")
    machine.succeed("ln -sfn /proc/self/exe /root/exe; ln -sfn /proc/self/fd/3 /root/fd; ln -sfn / /root/top")
    for name in ("absolute", "relative", "exe", "fd", f"top{secret}"):
        with pytest.raises(OSError, match=r"."):
            machine.read_bytes(f"/root/{name}")
    for name in ("absolute", "relative"):
        with pytest.raises(OSError, match=r"."):
            machine.write_text(f"/root/{name}", "overwritten")
    assert secret.read_text() == "of the machine"
    machine.succeed(
        f"mkdir -p /root/tree/sub; ln -sfn {tmp_path} /root/tree/out; echo in > /root/tree/sub/file"
    )
    machine.copy_from_machine("/root/tree", str(tmp_path / "copy"))
    assert (tmp_path / "copy/tree/sub/file").read_text() == "in\n"
    assert (tmp_path / "copy/tree/out").is_symlink()


def test_copies_go_both_ways(machine: Machine, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/run.sh").write_text("echo ran\n")
    (tree / "deep/run.sh").chmod(0o755)
    machine.copy_from_host(str(tree), "/root/copied")
    assert machine.succeed("/bin/sh -c /root/copied/deep/run.sh") == "ran\n"
    machine.copy_from_machine("/root/copied/deep/run.sh", str(tmp_path / "back"))
    assert os.access(tmp_path / "back/run.sh", os.X_OK)
    machine.copy_from_host_via_shell(str(tree / "deep/run.sh"), "/root/single")
    assert machine.read_text("/root/single") == "echo ran\n"


def test_waits_for_files_and_sockets(machine: Machine) -> None:
    threading.Timer(0.2, machine.succeed, ["mkdir -p /root/later/deep; touch /root/later/deep/file"]).start()
    machine.wait_for_file("/root/later/deep/file", timeout=60)
    machine.wait_for_closed_port(7000, timeout=60)
    threading.Timer(0.2, machine.start_job, ["echo.service"]).start()
    machine.wait_for_open_port(7000, timeout=60)
    with machine.connect_tcp(7000) as connection:
        connection.sendall(b"hi\n")
        assert connection.recv(100) == b"echo hi\n"
    port = machine.forward_port(0, 7000)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"there\n")
        assert connection.recv(100) == b"echo there\n"
    machine.wait_for_open_unix_socket("/run/systemd/private", timeout=60)
    machine.wait_for_open_unix_socket("/run/systemd/journal/socket", is_datagram=True, timeout=60)
    with pytest.raises(RequestedAssertionFailed):
        machine.wait_for_file("/root/never", timeout=0.2)


def test_a_port_in_use_is_a_clear_error(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises((NspawnError, RequestedAssertionFailed), match=str(port)):
            machine.forward_port(port, 80)


def test_console(machine: Machine) -> None:
    machine.wait_for_console_text("login:", timeout=60)
    assert "login:" in machine.get_console_log()
    machine.send_console("root\n")
    machine.wait_for_console_text(r"[#$] ", timeout=60)
    machine.send_console("echo con''sole\n")
    machine.wait_for_console_text("console", timeout=60)
    machine.succeed(
        "for i in $(seq 20000); do echo chatter $i; done > /dev/console; echo the end > /dev/console"
    )
    machine.wait_for_console_text("the end", timeout=60)
    assert "chatter 20000" in machine.get_console_log()


def test_the_console_cannot_kill_the_node(machine: Machine) -> None:
    with pytest.raises(ValueError, match="in a row"):
        machine.send_console("\x1d\x1d\x1d")
    assert machine.succeed("echo alive") == "alive\n"


def test_journal(machine: Machine) -> None:
    machine.succeed("systemd-cat --identifier=note echo first words")
    assert "first words" in machine.wait_for_journal("first .*words", timeout=60)
    assert "first words" in machine.journal(grep="first words")
    assert "first words" not in machine.journal(unit="systemd-logind.service")


def test_power(engine: Engine) -> None:
    with engine.boot(Topology({"machine": Node(root_size="200M")})) as nodes:
        machine = nodes["machine"]
        machine.succeed("echo kept > /root/disk; echo lost > /run/memory")
        boots = "journalctl --list-boots --no-pager | grep -c '^ *-*[0-9]'"
        assert machine.succeed(boots) == "1\n"
        leaders = [machine.leader_pid]
        for stop in (machine.reboot, machine.crash, machine.shutdown):
            stop()
            machine.start()
            assert machine.succeed("cat /root/disk") == "kept\n"
            machine.fail("test -e /run/memory")
            leaders.append(machine.leader_pid)
        assert len(set(leaders)) == 4
        assert machine.succeed(boots) == "4\n"
        machine.succeed("touch /run/memory; (sleep 0.1; systemctl reboot) >/dev/null 2>&1 &")
        machine.wait_until_succeeds("test ! -e /run/memory", timeout=30)
        machine.fail("head -c 300M /dev/zero > /root/large")
        machine.succeed("rm /root/large", "(sleep 0.1; systemctl poweroff) >/dev/null 2>&1 &")
        machine.wait_for_shutdown()
        assert not machine.is_up()


def test_a_boot_that_never_ends_says_what_it_waits_for(can_boot: None) -> None:
    hang = "[Unit]\nDescription=A service that hangs\n[Service]\nType=oneshot\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    with (
        Engine(EngineOptions(boot_timeout=4)) as engine,
        engine.boot(Topology({"slow": Node(units={"hang.service": hang})})) as nodes,
    ):
        with pytest.raises(BootError, match="slow: not ready") as caught:
            nodes["slow"].succeed("true")
        assert "hangs" in str(caught.value)
        assert (
            "hang.service" in nodes.diagnostics("slow")["slow: journal"]
            or "hangs" in nodes.diagnostics("slow")["slow: journal"]
        )


def test_a_slow_job_need_not_be_waited_for(can_boot: None) -> None:
    hang = (
        "[Service]\nType=oneshot\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    )
    topology = Topology({"slow": Node(units={"hang.service": hang})})
    with Engine(EngineOptions(boot_timeout=60)) as engine, engine.boot(topology, slow_job=3) as nodes:
        assert nodes["slow"].get_unit_info("hang.service")["ActiveState"] == "activating"
        nodes["slow"].wait_for_unit("basic.target")
        nodes["slow"].stop_job("hang.service")
        nodes["slow"].wait_for_unit("multi-user.target")
        nodes["slow"].reboot()
        assert nodes["slow"].get_unit_info("hang.service")["ActiveState"] == "activating"


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        ("Container running: User job slow.service/start running (9s / no limit)...", 9),
        ("User job a-b\\x2d@1.service/start running (1min 5s / 1min 30s)...", 65),
        ("Container running: User job x.mount/start running (1h 2min 3s / no limit)...", 3723),
        ("Container running: User job slow.service/stop running (9s / no limit)...", 0),
        ("Container running.", 0),
        ("Container running: Ready.", 0),
    ],
)
def test_how_long_a_job_has_run(status: str, seconds: float) -> None:
    assert starting_for(status) == seconds


def test_a_boot_that_fails_is_raised_by_the_first_command(engine: Engine) -> None:
    with engine.boot(Topology({"broken": Node(nspawn_options=["--no-such-option"])})) as nodes:
        with pytest.raises(BootError, match="before the node was ready") as caught:
            nodes["broken"].succeed("true")
        assert "no-such-option" in str(caught.value)
        assert nodes.boot_failures() == []
