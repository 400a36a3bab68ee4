"""The sandbox's life and death: whatever is killed, and in whatever order, nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nspawn import cgroups, sandbox
from pytest_nspawn.cluster import Engine
from pytest_nspawn.errors import MachineError, SandboxError
from pytest_nspawn.model import Topology
from tests.waiting import wait_for

from .leftovers import Leftovers, is_gone, processes_in, run_groups

pytestmark = pytest.mark.usefixtures("can_boot")


class Victim:
    """A test process in another process, with two booted nodes."""

    def __init__(self, *arguments: str) -> None:
        script = Path(__file__).with_name("victim.py")
        self.before = Leftovers.now()
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the victim did not boot: see its stderr above"
        self.pids: dict[str, int] = json.loads(line)
        self.groups = run_groups(self.process.pid)
        assert processes_in(self.groups)

    def ask(self, line: str) -> list[object]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer: list[object] = json.loads(self.process.stdout.readline())
        return answer

    def part(self, name: str) -> int:
        return next(pid for key, pid in self.pids.items() if name in key)

    def kill(self, *names: str) -> None:
        for name in names:
            os.kill(self.process.pid if name == "test process" else self.part(name), signal.SIGKILL)

    def end(self) -> None:
        """End the test process by end of file, as a test run ends."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def assert_gone(self) -> None:
        """Everything of the run is gone within what is promised."""
        wait_for(lambda: all(is_gone(pid) for name, pid in self.pids.items() if name != "sleeper"))
        wait_for(lambda: not run_groups(self.process.pid))
        assert Leftovers.now() == self.before


def state_of(pid: int) -> str:
    """A process's state as one letter (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.fixture
def victim() -> Iterator[Victim]:
    victim = Victim()
    yield victim
    victim.close()


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_a_killed_test_process_leaves_nothing(victim: Victim, how: signal.Signals) -> None:
    victim.process.send_signal(how)
    victim.process.wait(60)
    victim.assert_gone()


def test_a_test_process_that_exits_without_cleaning_up_leaves_nothing(victim: Victim) -> None:
    assert victim.process.stdin is not None
    victim.process.stdin.write("quit\n")
    victim.process.stdin.flush()
    victim.process.wait(60)
    victim.assert_gone()


def test_a_test_process_that_ends_well_leaves_nothing(victim: Victim) -> None:
    victim.end()
    assert victim.process.returncode == 0
    victim.assert_gone()


@pytest.mark.parametrize("part", ["warden", "init"])
def test_a_killed_part_of_the_sandbox_is_an_error_and_leaves_nothing(victim: Victim, part: str) -> None:
    victim.kill(part)
    wait_for(lambda: is_gone(victim.part("alpha leader")))
    error, text = victim.ask("alpha true")
    assert error in ("BootError", "NotRunningError", "SandboxError"), text
    victim.end()
    victim.assert_gone()


def test_after_test_process_and_warden_the_next_run_removes_the_empty_groups(victim: Victim) -> None:
    victim.kill("test process", "warden")
    victim.process.wait(60)
    wait_for(lambda: not processes_in(run_groups(victim.process.pid)))
    groups = run_groups(victim.process.pid)
    sandbox.sweep([group.parent for group in groups])
    victim.assert_gone()


def test_a_sweep_beside_a_warden_that_removes_the_same_groups_disturbs_neither(
    victim: Victim, capfd: pytest.CaptureFixture[str]
) -> None:
    homes = {group.parent for group in victim.groups}
    victim.kill("test process")
    victim.process.wait(60)
    while run_groups(victim.process.pid):
        sandbox.sweep(list(homes))
    victim.assert_gone()
    assert not capfd.readouterr().err


def test_a_group_that_is_removed_while_a_sweep_waits_for_it_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = cgroups.cgroup_home().path
    if home is None:
        pytest.skip("here systemd makes the control groups' home: there is none to sweep")
    with subprocess.Popen(["sleep", "infinity"]) as process:
        group = (
            home / f"pytest-nspawn-{process.pid}-0-1"
        )  # of an owner that started at another time: it is dead
        group.mkdir()
        (group / "cgroup.procs").write_text(str(process.pid))

        class Poll:
            """Another run is quicker."""

            def register(self, *_arguments: object) -> None:
                pass

            def poll(self, _milliseconds: int) -> None:
                process.wait()
                wait_for(lambda: not processes_in([group]))
                with contextlib.suppress(FileNotFoundError):
                    group.rmdir()

        monkeypatch.setattr(select, "poll", Poll)
        sandbox.sweep([home])
    assert not group.exists()


@pytest.mark.parametrize("part", ["alpha nspawn", "alpha leader"])
def test_a_node_that_is_killed_can_be_started_again(victim: Victim, part: str) -> None:
    victim.kill(part)
    wait_for(lambda: is_gone(victim.part("alpha leader")))
    error, text = victim.ask("alpha true")
    assert error == "NotRunningError", text
    assert victim.ask("beta echo well") == [0, "well\n"]
    assert victim.ask("alpha start") == [0, "started\n"]
    victim.end()
    victim.assert_gone()


def test_a_killed_agent_is_replaced(victim: Victim) -> None:
    victim.kill("agent")
    wait_for(lambda: is_gone(victim.part("agent")))
    answers = [victim.ask(f"{node} echo well") for node in ("alpha", "beta", "alpha", "beta")]
    # The command that meets the dead agent may fail; the node lives, and the next one works.
    assert answers[2:] == [[0, "well\n"]] * 2
    victim.end()
    victim.assert_gone()


def test_killed_wires_are_told_once_asked(victim: Victim) -> None:
    victim.kill("wires")
    wait_for(lambda: is_gone(victim.part("wires")))
    for _ in range(2):
        error, text = victim.ask("alpha block")
        assert error == "SandboxError", text
        assert "netlink has ended" in str(text)
        wait_for(lambda: state_of(victim.part("init")) == "S")  # it does not turn on the end of file
    assert victim.ask("alpha echo well") == [0, "well\n"]
    victim.end()
    victim.assert_gone()


def test_a_reboot_that_cannot_start_the_node_again_says_why(victim: Victim) -> None:
    for group in victim.groups:
        for path in group.rglob("node-*-1"):
            path.with_name(path.name.removesuffix("1") + "2").mkdir()
    victim.ask("alpha systemctl reboot")
    wait_for(lambda: is_gone(victim.part("alpha nspawn")))
    error, text = victim.ask("alpha true")
    assert error in ("BootError", "NotRunningError")
    assert "cannot start the node again: [Errno 17] File exists" in str(text)
    assert victim.ask("beta echo well") == [0, "well\n"]
    assert victim.ask("alpha start") == [0, "started\n"]
    victim.end()
    victim.assert_gone()


def test_a_sandbox_that_fails_says_why() -> None:
    with Engine() as engine, engine.boot(Topology({"node": None})) as nodes:
        with pytest.raises(SandboxError, match=r"its init failed: (?s:.*)KeyError: 'no such operation'"):
            engine.sandbox.call("no such operation")
        with pytest.raises(MachineError, match="KeyError"):
            nodes["node"].succeed("true")


def test_a_command_under_way_ends_with_its_node(victim: Victim) -> None:
    killer = threading.Timer(0.2, victim.kill, ["alpha leader"])
    killer.start()
    error, text = victim.ask("alpha sleep 15")
    killer.join()
    assert error == "NotRunningError", text
    victim.end()
    victim.assert_gone()


def test_a_fork_of_the_test_process_does_not_keep_the_sandbox() -> None:
    victim = Victim("fork")
    try:
        victim.kill("test process")
        victim.process.wait(60)
        victim.assert_gone()
    finally:
        os.kill(victim.pids["sleeper"], signal.SIGKILL)
        victim.close()


def test_nodes_that_a_thread_started_outlive_it() -> None:
    with Engine() as engine:
        clusters = []
        thread = threading.Thread(target=lambda: clusters.append(engine.boot(Topology({"node": None}))))
        thread.start()
        thread.join()
        assert clusters[0]["node"].succeed("echo alive") == "alive\n"
