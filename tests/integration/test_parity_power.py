"""Parity with the NixOS test driver, on real nodes: power, networks, console, screen, and what only a VM can do."""

from __future__ import annotations

import contextlib
import inspect
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_nspawn import Machine, UnsupportedError
from pytest_nspawn.cluster import Cluster, Engine
from pytest_nspawn.errors import (
    CommandFailed,
    ConfigError,
    HostError,
    NotRunningError,
    RequestedAssertionFailed,
    TimeoutExceeded,
)
from pytest_nspawn.model import Node, Topology

from .parity import ATTRIBUTES, METHODS, VM_ONLY

FETCH = "curl --fail --silent --max-time 1 --output /dev/null http://{node}:8000/"
SERVE = "python3 -m http.server 8000 >/dev/null 2>&1 &"

# An X server's socket, and the program that asks it for windows.
FAKE_X: dict[str, str | tuple[str, int]] = {
    "/etc/profile.d/x.sh": "export PATH=/opt/x:$PATH\n",
    "/opt/x/xwininfo": (
        """#!/bin/sh
[ "$*" = "-root -tree" ] && [ -n "$DISPLAY" ] || exit 2
[ -e /tmp/windows ] || { echo "unable to open display" >&2; exit 1; }
echo "xwininfo: Window id: 0x4f (the root window) (has no name)"
echo "  Root window id: 0x4f (the root window) (has no name)"
while read -r name; do
  echo "     0x600003 \\"$name\\": (\\"app\\" \\"App\\")  800x600+0+0  +0+0"
done < /tmp/windows
""",
        0o755,
    ),
}


@pytest.fixture(scope="module")
def pair(engine: Engine) -> Iterator[Cluster]:
    with engine.boot(Topology({"machine": Node(files=FAKE_X), "other": Node()})) as nodes:
        yield nodes


@pytest.fixture
def served(pair: Cluster) -> Cluster:
    """Both nodes up, and `machine` serves what `other` can fetch."""
    machine, other = pair["machine"], pair["other"]
    pair.start_all()
    machine.execute("pkill -f http.server")
    machine.succeed(SERVE)
    machine.wait_for_open_port(8000)
    other.wait_until_succeeds(FETCH.format(node="machine"), timeout=30)
    return pair


# The shape of it all


@pytest.mark.parametrize(("name", "expected"), METHODS.items())
def test_names_arguments_and_defaults(name: str, expected: str) -> None:
    signature = inspect.signature(getattr(Machine, name))
    bare = [
        each.replace(annotation=inspect.Parameter.empty)
        for key, each in signature.parameters.items()
        if key != "self"
    ]
    assert str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)) == expected


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_are_there(machine: Machine, name: str) -> None:
    getattr(machine, name)


@pytest.mark.parametrize("name", VM_ONLY)
def test_what_only_a_virtual_machine_can_do_says_so(machine: Machine, name: str) -> None:
    method: Any = getattr(machine, name)
    with pytest.raises(UnsupportedError, match="needs a virtual machine") as caught:
        method("argument", timeout=1)
    assert caught.value.method == name
    assert caught.value.node == "machine"
    assert caught.value.way_out


# Power


def test_is_up(engine: Engine) -> None:
    with engine.boot(Topology({"late": Node()}), start=False) as nodes:
        late = nodes["late"]
        assert not late.is_up()
        late.start()
        late.connect()
        assert late.is_up()


GATE = """
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'until [ -e /mnt/gate/open ]; do sleep 0.05; done'

[Install]
WantedBy=multi-user.target
"""


def test_start(engine: Engine, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    node = Node(binds={"/mnt/gate": gate}, units={"gate.service": GATE})
    with engine.boot(Topology({"late": node}), start=False) as nodes:
        late = nodes["late"]
        late.start()
        (gate / "open").touch()  # what the boot waits for comes after start() has returned
        late.start()
        late.start(allow_reboot=True)
        late.connect()
        leader = late.leader_pid
        late.start()
        assert late.leader_pid == leader


def test_connect(engine: Engine) -> None:
    with engine.boot(Topology({"late": Node()}), start=False) as nodes:
        nodes["late"].connect()
        assert nodes["late"].succeed("echo here") == "here\n"


def test_shutdown(machine: Machine) -> None:
    machine.succeed("echo kept > /root/kept")
    machine.shutdown()
    assert not machine.is_up()
    machine.shutdown()
    with pytest.raises(NotRunningError):
        machine.succeed("true")
    machine.start()
    assert machine.succeed("cat /root/kept") == "kept\n"


def test_wait_for_shutdown(machine: Machine) -> None:
    machine.execute("systemctl poweroff >/dev/null 2>&1 &", check_return=False, check_output=False)
    machine.wait_for_shutdown()
    assert not machine.is_up()
    machine.wait_for_shutdown()
    machine.start()


def test_wait_for_shutdown_fails_times_out(machine: Machine) -> None:
    machine.connect()
    with pytest.raises(TimeoutExceeded, match="power off"):
        machine.wait_for_shutdown(timeout=0.3)


def test_crash(machine: Machine) -> None:
    machine.succeed("echo kept > /root/crashed", "sleep 1000 >/dev/null 2>&1 &")
    machine.crash()
    assert not machine.is_up()
    machine.crash()
    machine.start()
    assert machine.succeed("cat /root/crashed") == "kept\n"
    machine.fail("pgrep -f 'sleep 100[0]'")


def test_reboot(machine: Machine) -> None:
    before = machine.succeed("cat /proc/1/stat | cut -d' ' -f22"), machine.leader_pid
    machine.reboot()
    assert (machine.succeed("cat /proc/1/stat | cut -d' ' -f22"), machine.leader_pid) != before


def test_release(engine: Engine) -> None:
    with engine.boot(Topology({"released": Node()})) as nodes:
        node = nodes["released"]
        node.connect()
        node.release()
        assert not node.is_up()
        node.release()


def test_a_restarted_node_works(machine: Machine) -> None:
    for _ in range(2):
        machine.crash()
        machine.start()
        machine.wait_for_unit("multi-user.target")
        assert machine.succeed("systemctl is-active dbus.socket") == "active\n"


# Networks


def test_block(served: Cluster) -> None:
    machine, other = served["machine"], served["other"]
    connection = other.succeed(
        "rm -f /tmp/connected; python3 -uc 'import socket, time; s = socket.create_connection((\"machine\", 8000)); print(1); time.sleep(1000)' "
        ">/tmp/connected 2>&1 & until grep -q 1 /tmp/connected; do sleep 0.1; done"
    )
    assert connection == ""
    machine.block()
    assert "NO-CARRIER" in machine.succeed("ip link show eth1")
    other.fail(FETCH.format(node="machine"))
    # What runs in the node runs on, and other nodes see each other as before.
    machine.succeed("curl --fail --silent --output /dev/null http://localhost:8000/")
    machine.unblock()


def test_block_fails(engine: Engine) -> None:
    with engine.boot(Topology({"lonely": Node(networks=[])})) as nodes:
        nodes["lonely"].block()  # it has no network to be unplugged from
        nodes["lonely"].unblock()


def test_unblock(served: Cluster) -> None:
    machine, other = served["machine"], served["other"]
    machine.block()
    other.fail(FETCH.format(node="machine"))
    machine.unblock()
    assert "NO-CARRIER" not in machine.succeed("ip link show eth1")
    other.wait_until_succeeds(FETCH.format(node="machine"), timeout=30)


def test_a_node_stays_unplugged_over_a_restart(served: Cluster) -> None:
    machine, other = served["machine"], served["other"]
    machine.links[1].down()
    machine.crash()
    machine.start()
    assert not machine.is_up()  # its boot waits for the network
    machine.links[1].up()
    machine.connect()
    machine.succeed(SERVE)
    other.wait_until_succeeds(FETCH.format(node="machine"), timeout=30)


def test_one_link_of_two(engine: Engine) -> None:
    with engine.boot(Topology({"a": Node(networks=[1, "back"]), "b": Node(networks=[1, "back"])})) as nodes:
        a, b = nodes["a"], nodes["b"]
        b.succeed(SERVE)
        b.wait_for_open_port(8000)
        assert list(a.links) == [1, "back"]
        assert a.links["back"].ifname == "eth2"
        a.links["back"].down()
        assert "NO-CARRIER" in a.succeed("ip link show eth2")
        assert "NO-CARRIER" not in a.succeed("ip link show eth1")
        a.wait_until_succeeds(FETCH.format(node="192.168.1.2"), timeout=60)


def test_a_link_is_impaired_or_the_kernels_option_named(served: Cluster) -> None:
    machine, other = served["machine"], served["other"]
    try:
        machine.links[1].set(delay=0.5)
    except HostError as error:
        told = str(error)
    else:
        told = ""
    if told:
        assert "CONFIG_NET_SCH_NETEM" in told
        return
    begin = time.monotonic()
    other.succeed(FETCH.format(node="machine").replace("--max-time 1", "--max-time 9"))
    assert time.monotonic() - begin > 0.5
    machine.links[1].set()
    other.wait_until_succeeds(FETCH.format(node="machine"), timeout=60)


def test_a_loss_is_a_share(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="share from 0 to 1"):
        machine.links[1].set(loss=50)


def test_freeze_and_thaw(served: Cluster) -> None:
    machine, other = served["machine"], served["other"]
    machine.freeze()
    other.fail(FETCH.format(node="machine"))
    for act in (lambda: machine.succeed("true"), machine.shutdown, machine.reboot):
        with pytest.raises(NotRunningError, match="thaw"):
            act()
    machine.thaw()
    other.wait_until_succeeds(FETCH.format(node="machine"), timeout=60)
    assert machine.succeed("echo again") == "again\n"
    machine.freeze()
    machine.crash()
    machine.start()
    assert machine.succeed("echo anew") == "anew\n"


def test_a_cluster_with_a_frozen_node_can_be_told_about_and_closed(engine: Engine) -> None:
    with engine.boot(Topology({"cold": Node()})) as nodes:
        nodes["cold"].connect()
        nodes["cold"].freeze()
        assert "frozen" in nodes.diagnostics("cold")["cold: journal"]


# Console and screen


def test_get_console_log(machine: Machine) -> None:
    machine.succeed("echo for the log > /dev/console")
    machine.wait_for_console_text("for the log", timeout=60)
    assert "for the log" in machine.get_console_log()


def test_wait_for_console_text(machine: Machine) -> None:
    machine.succeed("(sleep 0.3; echo 'number 42' > /dev/console) >/dev/null 2>&1 &")
    machine.wait_for_console_text(r"number \d+", timeout=60)


def test_wait_for_console_text_fails_times_out(machine: Machine) -> None:
    machine.connect()
    with pytest.raises(TimeoutExceeded, match="never printed"):
        machine.wait_for_console_text("never printed", timeout=0.3)
    with pytest.raises(ConfigError, match="no regular expression"):
        machine.wait_for_console_text("(")


def test_send_console(machine: Machine) -> None:
    machine.succeed("systemctl stop console-getty")
    machine.succeed('(read -r line < /dev/console; echo "got $line" > /tmp/typed) >/dev/null 2>&1 &')
    machine.sleep(0.3)
    machine.send_console("hello\n")
    assert machine.wait_until_succeeds("cat /tmp/typed", timeout=60) == "got hello\n"


def test_send_console_fails(machine: Machine) -> None:
    with pytest.raises(ValueError, match="systemd-nspawn"):
        machine.send_console("\x1d\x1d")


def test_get_tty_text(machine: Machine) -> None:
    machine.succeed("echo on the screen > /dev/console")
    machine.wait_until_tty_matches("1", "on the screen", timeout=60)
    assert "on the screen" in machine.get_tty_text("1")


def test_get_tty_text_fails(machine: Machine) -> None:
    with pytest.raises(UnsupportedError, match="tty 7") as caught:
        machine.get_tty_text("7")
    assert caught.value.method == "get_tty_text"


def test_wait_until_tty_matches(machine: Machine) -> None:
    machine.succeed("(sleep 0.3; echo 'prompt> ' > /dev/console) >/dev/null 2>&1 &")
    machine.wait_until_tty_matches("1", r"prompt>\s", timeout=60)


def test_wait_until_tty_matches_fails_times_out(machine: Machine) -> None:
    with pytest.raises(TimeoutExceeded, match="tty 1"):
        machine.wait_until_tty_matches("1", "never shown", timeout=0.3)
    with pytest.raises(UnsupportedError):
        machine.wait_until_tty_matches("2", "anything")


def test_dump_tty_contents(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.succeed("echo to be dumped > /dev/console")
    machine.wait_until_tty_matches("1", "to be dumped", timeout=60)
    with caplog.at_level("INFO"):
        machine.dump_tty_contents("1")
    assert "to be dumped" in caplog.text


def test_dump_tty_contents_fails(machine: Machine) -> None:
    with pytest.raises(UnsupportedError) as caught:
        machine.dump_tty_contents("3")
    assert caught.value.method == "dump_tty_contents"


def test_wait_for_x(machine: Machine) -> None:
    machine.succeed("mkdir -p /tmp/.X11-unix && rm -f /tmp/.X11-unix/X0")
    machine.succeed(
        "python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); time.sleep(0.4); "
        's.bind("/tmp/.X11-unix/X0"); s.listen(); time.sleep(1000)\' >/dev/null 2>&1 &'
    )
    machine.wait_for_x(timeout=60)


def test_wait_for_x_fails_times_out(other: Machine) -> None:
    with pytest.raises(TimeoutExceeded, match="X0"):
        other.wait_for_x(timeout=0.3)


def test_get_window_names(machine: Machine) -> None:
    machine.write_text("/tmp/windows", 'Editor - "notes"\nTerminal\n')
    assert machine.get_window_names() == ['Editor - "notes"', "Terminal"]


def test_get_window_names_fails(other: Machine) -> None:
    with pytest.raises(CommandFailed, match="xwininfo"):
        other.get_window_names()


def test_wait_for_window(machine: Machine) -> None:
    machine.succeed("(sleep 0.4; echo 'Late window' > /tmp/windows) >/dev/null 2>&1 & rm -f /tmp/windows")
    machine.wait_for_window("^Late", timeout=60)


def test_wait_for_window_fails_times_out(machine: Machine) -> None:
    machine.write_text("/tmp/windows", "Terminal\n")
    with pytest.raises(TimeoutExceeded, match="last state: Terminal"):
        machine.wait_for_window("Browser", timeout=0.5)


def test_shell_interact(machine: Machine) -> None:
    with pytest.raises(UnsupportedError, match="address"):
        machine.shell_interact(address="127.0.0.1:4444")


def test_shell_interact_fails(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.__stdin__", None)
    with pytest.raises(ConfigError, match="terminal"):
        machine.shell_interact()


def test_console_interact(machine: Machine) -> None:
    # With a terminal it is proven in tests of the console; here, that it is the node's own that is asked.
    assert callable(machine.console_interact)


def test_console_interact_fails(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.__stdin__", None)
    with pytest.raises(ConfigError, match="terminal"):
        machine.console_interact()


def test_ssh_backdoor_command(machine: Machine) -> None:
    machine.connect()
    assert f"--target {machine.leader_pid} " in machine.ssh_backdoor_command()
    if os.getuid():
        return  # nsenter(1) needs root
    found = subprocess.run(
        machine.ssh_backdoor_command(),
        shell=True,
        input="hostname; pwd; exit\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "machine\n/\n"


def test_ssh_backdoor_command_fails(engine: Engine) -> None:
    with engine.boot(Topology({"off": Node()}), start=False) as nodes, pytest.raises(NotRunningError):
        nodes["off"].ssh_backdoor_command()


def test_a_failed_wait_leaves_the_node_well(machine: Machine) -> None:
    with contextlib.suppress(RequestedAssertionFailed):
        machine.succeed("sleep 60", timeout=0.2)
    assert machine.succeed("echo well") == "well\n"
