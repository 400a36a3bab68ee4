"""The rest: power, console, log, state, and the shape of it all."""

from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pytest_nspawn.errors import ConfigError, MachineError, NotRunningError, TimeoutExceeded, UnsupportedError
from pytest_nspawn.machine import Machine

from .fakes import LocalContainer, later

# driver-api: the NixOS test driver's names, arguments and defaults.
SIGNATURES = {
    "shutdown": "()",
    "reboot": "()",
    "crash": "()",
    "is_up": "()",
    "release": "()",
    "connect": "()",
    "execute": "(command, check_return=True, check_output=True, timeout=900)",
    "succeed": "(*commands, timeout=None)",
    "fail": "(*commands, timeout=None)",
    "wait_until_succeeds": "(command, timeout=900)",
    "wait_until_fails": "(command, timeout=900)",
    "systemctl": "(q, user=None)",
    "start_job": "(jobname, user=None)",
    "stop_job": "(jobname, user=None)",
    "wait_for_unit": "(unit, user=None, timeout=900)",
    "require_unit_state": "(unit, require_state='active')",
    "get_unit_info": "(unit, user=None)",
    "get_unit_property": "(unit, property, user=None)",
    "wait_for_file": "(filename, timeout=900)",
    "sleep": "(secs)",
    "wait_for_open_port": "(port, addr='localhost', timeout=900)",
    "wait_for_closed_port": "(port, addr='localhost', timeout=900)",
    "wait_for_open_unix_socket": "(addr, is_datagram=False, timeout=900)",
    "copy_from_host": "(source, target)",
    "copy_from_host_via_shell": "(source, target)",
    "copy_from_machine": "(source, target_dir='')",
    "copy_from_vm": "(source, target_dir='')",
    "log": "(msg)",
    "log_serial": "(msg)",
    "nested": "(msg, attrs={})",
    "run_callbacks": "()",
    "cleanup_statedir": "()",
    "shell_interact": "(address=None)",
    "console_interact": "()",
    "send_console": "(chars)",
    "wait_for_console_text": "(regex, timeout=None)",
    "get_console_log": "()",
    "connect_tcp": "(port, addr='localhost')",
    "journal": "(unit=None, since=None, grep=None)",
    "wait_for_journal": "(regex, unit=None, timeout=900)",
    "run": "(command, *, check=False, timeout=None, user=None, env=None, cwd=None, stdin=None)",
}

VM_ONLY = [
    "screenshot",
    "send_key",
    "send_chars",
    "get_screen_text",
    "get_screen_text_variants",
    "wait_for_text",
    "send_monitor_command",
    "wait_for_monitor_prompt",
    "wait_for_qmp_event",
    "switch_root",
]


@pytest.mark.parametrize(("name", "expected"), SIGNATURES.items())
def test_signatures_are_the_drivers(name: str, expected: str) -> None:
    signature = inspect.signature(getattr(Machine, name))
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for key, parameter in signature.parameters.items()
        if key != "self"
    ]
    assert str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)) == expected


@pytest.mark.parametrize("name", VM_ONLY)
def test_what_only_a_vm_can_do_says_so(machine: Machine, name: str) -> None:
    method: Any = getattr(machine, name)
    with pytest.raises(UnsupportedError) as caught:
        method("whatever", timeout=1)
    assert caught.value.node == "server"
    assert caught.value.method == name
    assert caught.value.reason in str(caught.value)
    assert caught.value.way_out in str(caught.value)
    assert caught.value.reason in getattr(Machine, name).__doc__


def test_power(machine: Machine, container: LocalContainer) -> None:
    assert machine.is_up()
    assert repr(machine) == "<Machine 'server' (ready)>"
    first = machine.leader_pid
    machine.shutdown()
    assert not machine.is_up()
    assert repr(machine) == "<Machine 'server' (off)>"
    machine.shutdown()
    machine.crash()
    machine.wait_for_shutdown()
    with pytest.raises(NotRunningError):
        machine.execute("true")
    machine.start()
    machine.connect()
    assert machine.succeed("echo back") == "back\n"
    assert machine.leader_pid != first
    machine.crash()
    machine.start(allow_reboot=True)
    machine.reboot()
    assert machine.succeed("echo back") == "back\n"
    assert container.calls == ["start", "power_off", "start", "kill", "start", "reboot", "start"]


def test_wait_for_shutdown(machine: Machine, container: LocalContainer) -> None:
    with pytest.raises(TimeoutExceeded, match="waiting for the node to power off"):
        machine.wait_for_shutdown(timeout=timedelta(seconds=0.05))
    later(0.1, container.kill)
    machine.wait_for_shutdown()
    assert not machine.is_up()


def test_a_shutdown_that_hangs_is_a_fault(
    machine: Machine, container: LocalContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_off(timeout: float | None = None) -> None:
        raise TimeoutError("server still runs after 90 s")

    monkeypatch.setattr(container, "power_off", power_off)
    with pytest.raises(MachineError, match=r"crash\(\) cuts its power"):
        machine.shutdown()


def test_console(machine: Machine, container: LocalContainer) -> None:
    container.console.text = "Welcome\nlogin: "
    machine.wait_for_console_text("login:")
    later(0.2, lambda: setattr(container.console, "text", "started 42 things"))
    machine.wait_for_console_text(r"started \d+", timeout=60)
    assert machine.get_console_log() == "started 42 things"
    with pytest.raises(TimeoutExceeded, match="started 42 things"):
        machine.wait_for_console_text("never", timeout=0.1)
    with pytest.raises(ConfigError, match="no regular expression"):
        machine.wait_for_console_text("(")
    machine.send_console("root\n")
    assert container.console.typed == "root\n"


def test_console_of_a_node_that_ends(machine: Machine, container: LocalContainer) -> None:
    def end() -> None:
        container.console.text = "Power down."
        container.kill()

    later(0.1, end)
    machine.wait_for_console_text("Power down")
    with pytest.raises(NotRunningError):
        machine.wait_for_console_text("never")


def test_interact_without_a_terminal(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="terminal"):
        machine.shell_interact()
    with pytest.raises(UnsupportedError, match="address"):
        machine.shell_interact("tcp:1234")


def test_log(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), machine.nested("doing it"):
        machine.log("a message with %s")
        machine.log_serial("a line")
    assert caplog.messages[:3] == ["server: doing it", "server: a message with %s", "server: console: a line"]
    assert caplog.messages[3].startswith("server: (finished: doing it, in 0.0")
    caplog.clear()
    with caplog.at_level("INFO"), pytest.raises(KeyError), machine.nested("doing it"):
        raise KeyError
    assert caplog.messages[-1].startswith("server: (failed: doing it")


def test_state(machine: Machine, tmp_path: Path) -> None:
    (machine.state_dir / "file").touch()
    assert machine.state_dir == tmp_path / "machines" / "vm-state-server"
    assert machine.shared_dir.is_dir()
    machine.cleanup_statedir()
    assert list(machine.state_dir.iterdir()) == []
    assert not machine.keep_machine_state


def test_callbacks(machine: Machine) -> None:
    calls: list[int] = []
    machine.callbacks = [lambda: calls.append(1), lambda: calls.append(2)]
    machine.run_callbacks()
    assert calls == [1, 2]


def test_sleep_takes_both_kinds_of_time(machine: Machine) -> None:
    machine.sleep(0.01)
    machine.sleep(timedelta(milliseconds=10))
