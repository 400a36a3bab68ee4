from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from pytest_nspawn import timing
from pytest_nspawn.errors import CommandFailed, NotRunningError, RequestedAssertionFailed, TimeoutExceeded
from pytest_nspawn.machine import Machine
from pytest_nspawn.model import CommandResult
from tests.waiting import wait_for

from .fakes import LocalContainer, later


def test_execute_gives_exit_code_and_stdout(machine: Machine) -> None:
    assert machine.execute("echo out; echo err >&2; exit 3") == (3, "out\n")
    assert machine.execute("true") == (0, "")


def test_execute_is_strict_bash(machine: Machine) -> None:
    assert machine.execute("false | true")[0] == 1
    assert machine.execute("echo $not_there")[0] != 0
    assert machine.execute("false; echo not reached") == (1, "")


def test_execute_reads_nothing_and_takes_any_bytes(machine: Machine) -> None:
    assert machine.execute("cat; printf 'a\\xffb'") == (0, "a�b")


def test_execute_without_return_gives_minus_one(machine: Machine) -> None:
    assert machine.execute("echo out; exit 3", check_return=False) == (-1, "out\n")


def test_execute_without_output_does_not_wait(machine: Machine, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    command = f"until [ -e {go} ]; do sleep 0.05; done; head -c 1000000 /dev/zero; echo x >&2; touch {done}"
    assert machine.execute(command, check_output=False) == (-2, "")
    assert not done.exists()
    go.touch()
    machine.wait_for_file(str(done), timeout=60)


def test_execute_without_output_ends_at_its_limit(machine: Machine, seen: list[CommandResult]) -> None:
    machine.execute("sleep 60", check_output=False, timeout=0.2)
    wait_for(lambda: seen)
    assert [result.exit_code for result in seen] == [124]


def test_execute_gives_124_at_its_limit(machine: Machine, tmp_path: Path) -> None:
    command = f"echo before; sleep 60; touch {tmp_path}/slept"
    assert machine.execute(command, timeout=timedelta(seconds=2)) == (124, "before\n")
    assert not (tmp_path / "slept").exists()


def test_only_default_limits_are_scaled(machine: Machine) -> None:
    timing.set_factor(0.0001)
    try:
        assert machine.execute("sleep 0.3", timeout=900)[0] == 0
        assert machine.execute("sleep 30")[0] == 124
    finally:
        timing.set_factor(1.0)


def test_succeed_joins_outputs(machine: Machine) -> None:
    assert machine.succeed("echo a", "echo b") == "a\nb\n"


def test_succeed_reads_like_a_failed_assertion(machine: Machine) -> None:
    with pytest.raises(CommandFailed) as caught:
        machine.succeed("echo fine", "echo out; echo err >&2; exit 7", "echo not reached")
    assert caught.value.result.exit_code == 7
    assert isinstance(caught.value, AssertionError)
    assert caught.value.__suppress_context__
    text = str(caught.value)
    for part in ("server", "exit 7", "exit code 7", "out", "err", "duration"):
        assert part in text


def test_fail_wants_a_failure(machine: Machine) -> None:
    assert machine.fail("echo a; false", "echo b; false") == "a\nb\n"
    with pytest.raises(CommandFailed) as caught:
        machine.fail("true")
    assert caught.value.expected == "a non-zero exit code"


def test_a_command_that_is_too_slow_fails(machine: Machine) -> None:
    with pytest.raises(CommandFailed) as caught:
        machine.succeed("sleep 60", timeout=0.1)
    assert caught.value.result.exit_code == 124
    assert machine.fail("sleep 60", timeout=0.1) == ""


def test_run_takes_words_and_surroundings(machine: Machine, tmp_path: Path) -> None:
    result = machine.run(["printf", "%s|", "a b", "$HOME"])
    assert (result.stdout, result.command) == ("a b|$HOME|", ("printf", "%s|", "a b", "$HOME"))
    result = machine.run("pwd; echo $COLOUR; cat", cwd=str(tmp_path), env={"COLOUR": "re'd"}, stdin="in")
    assert result.stdout == f"{tmp_path}\nre'd\nin"
    assert machine.run("exit 4").exit_code == 4
    with pytest.raises(CommandFailed):
        machine.run("exit 4", check=True)


def test_popen_runs_on(machine: Machine) -> None:
    with machine.popen("read line; echo got $line; exit 5", stdin=True) as process:
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.write(b"this\n")
        assert process.stdout.read() == b"got this\n"
        assert process.wait(timeout=60) == 5


def test_wait_until_succeeds_gives_the_output(machine: Machine, tmp_path: Path) -> None:
    later(0.2, (tmp_path / "there").touch)
    assert machine.wait_until_succeeds(f"ls {tmp_path}/there", timeout=60) == f"{tmp_path}/there\n"


def test_wait_until_fails_gives_the_output(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    later(0.2, (tmp_path / "there").unlink)
    assert machine.wait_until_fails(f"test -e {tmp_path}/there || (echo gone; false)", timeout=60) == "gone\n"


def test_wait_until_says_what_it_saw_last(machine: Machine) -> None:
    with pytest.raises(TimeoutExceeded) as caught:
        machine.wait_until_succeeds("echo still down; exit 3", timeout=2)
    error = caught.value
    assert (error.node, error.limit) == ("server", 2)
    assert error.last == "exit code 3\nstdout: still down"


def test_a_try_that_hangs_ends_with_the_wait(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(TimeoutExceeded):
        machine.wait_until_succeeds(f"sleep 60; touch {tmp_path}/slept", timeout=0.3)
    assert not (tmp_path / "slept").exists()


def test_tries_take_one_place_in_the_history(machine: Machine, seen: list[CommandResult]) -> None:
    machine.succeed("echo before")
    with pytest.raises(TimeoutExceeded):
        machine.wait_until_succeeds("false", timeout=0.2)
    assert [result.command for result in machine.history] == ["echo before", "false"]
    assert len(seen) > 2


def test_history_holds_the_last_fifty_with_tails(machine: Machine, seen: list[CommandResult]) -> None:
    for number in range(60):
        machine.execute(f"true {number}")
    machine.execute("head -c 100000 /dev/zero | tr '\\0' x; echo end")
    assert len(machine.history) == 50
    assert len(machine.history[-1].stdout) == 8 * 1024
    assert machine.history[-1].stdout.endswith("end\n")
    assert len(seen[-1].stdout) == 100004


def test_stderr_goes_to_the_log(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        machine.execute("echo warning >&2")
    assert "server: stderr of `echo warning >&2`: warning" in caplog.messages


def test_many_threads_at_once(machine: Machine, tmp_path: Path) -> None:
    outputs: dict[int, str] = {}

    def work(number: int) -> None:
        all_are_there = (
            f"cd {tmp_path}; touch {number}; until [ -e 15 ] && set -- * && [ $# = 16 ]; do sleep 0.05; done"
        )
        outputs[number] = machine.succeed(f"{all_are_there}; echo {number}", timeout=60)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: f"{number}\n" for number in range(16)}


def test_a_node_that_dies_ends_its_commands_and_waits(container: LocalContainer, machine: Machine) -> None:
    later(0.2, container.kill)
    with pytest.raises(NotRunningError):
        machine.succeed("sleep 60")
    with pytest.raises(NotRunningError):
        machine.wait_until_succeeds("false")
    with pytest.raises(NotRunningError):
        machine.execute("true")


def test_a_wait_goes_on_over_a_reboot(container: LocalContainer, machine: Machine, tmp_path: Path) -> None:
    later(0.2, container.begin_reboot)
    later(0.5, container.start)
    later(0.7, (tmp_path / "there").touch)
    machine.wait_until_succeeds(f"test -e {tmp_path}/there", timeout=60)
    assert container.boots == 2


def test_callbacks_run_before_commands_and_can_fail_them(machine: Machine) -> None:
    calls = []

    def callback() -> None:
        calls.append(machine.execute("true"))
        if len(calls) == 3:
            raise RequestedAssertionFailed(message="the condition is false")

    machine.callbacks.append(callback)
    machine.succeed("true")
    assert calls == [(0, "")]
    with pytest.raises(RequestedAssertionFailed, match="the condition is false"):
        machine.wait_until_succeeds("false", timeout=60)


def test_a_wait_goes_on_where_only_the_agent_was_killed(
    container: LocalContainer, machine: Machine, tmp_path: Path
) -> None:
    later(0.3, container.kill_agent)
    later(1.0, (tmp_path / "there").touch)
    machine.wait_for_file(str(tmp_path / "there"), timeout=60)
    later(0.3, container.kill_agent)
    machine.wait_until_succeeds("sleep 0.6", timeout=60)
    assert container.boots == 1
