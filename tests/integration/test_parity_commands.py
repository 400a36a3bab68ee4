"""Parity with the NixOS test driver, on real nodes: commands."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from pytest_nspawn import CommandFailed, Machine
from pytest_nspawn.errors import TimeoutExceeded


def test_execute(machine: Machine) -> None:
    assert machine.execute("echo out; echo err >&2; exit 3") == (3, "out\n")
    # A login environment, strict, in bash, with nothing on stdin.
    assert machine.execute("shopt -q login_shell || [[ $PATH == *bin* ]]; cat") == (0, "")
    assert machine.execute("false; echo not reached")[0] == 1
    assert machine.execute("false | true")[0] == 1
    assert machine.execute("printf '\\377'") == (0, "\ufffd")


def test_execute_waits_until_stdout_is_closed(machine: Machine) -> None:
    assert machine.execute("(sleep 0.5; echo late) & echo soon") == (0, "soon\nlate\n")
    assert machine.execute("(sleep 60; touch /tmp/slept) >/dev/null & echo soon") == (0, "soon\n")
    assert not machine.exists("/tmp/slept")


def test_execute_without_checks(machine: Machine) -> None:
    assert machine.execute("echo seen; exit 3", check_return=False) == (-1, "seen\n")
    assert machine.execute("sleep 60; touch /tmp/waited; exit 3", check_output=False) == (-2, "")
    assert machine.execute("sleep 60; touch /tmp/waited", False, False) == (-2, "")
    assert not machine.exists("/tmp/waited")


def test_execute_fails(machine: Machine) -> None:
    assert machine.execute("no-such-program")[0] == 127
    assert machine.execute("kill -9 $$")[0] == 137


@pytest.mark.parametrize("limit", [2.0, timedelta(seconds=2)])
def test_execute_times_out(machine: Machine, limit: float) -> None:
    assert machine.execute("echo begun; sleep 60", timeout=limit) == (124, "begun\n")


def test_succeed(machine: Machine) -> None:
    assert machine.succeed("echo one", "echo two >&2", "echo three") == "one\nthree\n"
    assert machine.succeed() == ""


def test_succeed_fails(machine: Machine) -> None:
    with pytest.raises(CommandFailed) as caught:
        machine.succeed("echo said; false", "touch /root/not-reached")
    assert "said" in str(caught.value)
    assert not machine.exists("/root/not-reached")


def test_succeed_times_out(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match="124"):
        machine.succeed("sleep 60", timeout=0.3)


def test_fail(machine: Machine) -> None:
    assert machine.fail("echo one; false", "echo two; exit 7") == "one\ntwo\n"


def test_fail_fails(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match="unexpectedly succeeded"):
        machine.fail("false", "true")


def test_fail_times_out(machine: Machine) -> None:
    # 124 is no success: as upstream, where timeout(1) ends the command.
    machine.fail("sleep 60", timeout=0.3)


def test_wait_until_succeeds(machine: Machine) -> None:
    machine.succeed("rm -f /tmp/tries")
    assert (
        machine.wait_until_succeeds("echo x >> /tmp/tries; [ $(wc -l < /tmp/tries) -ge 3 ] && echo done")
        == "done\n"
    )


def test_wait_until_succeeds_fails_times_out(machine: Machine) -> None:
    with pytest.raises(TimeoutExceeded, match=r"action timed out after .* \(limit 2 s\)") as caught:
        machine.wait_until_succeeds("echo the reason; false", timeout=2)
    assert "the reason" in str(caught.value)


def test_wait_until_fails(machine: Machine) -> None:
    machine.succeed("(sleep 0.5; rm /tmp/there) >/dev/null 2>&1 & touch /tmp/there")
    assert (
        machine.wait_until_fails("cat /tmp/there && echo there || { echo gone; exit 1; }", timeout=60)
        == "gone\n"
    )


def test_wait_until_fails_fails_times_out(machine: Machine) -> None:
    with pytest.raises(TimeoutExceeded, match=r"limit 0\.5 s"):
        machine.wait_until_fails("true", timeout=0.5)


def test_sleep(machine: Machine) -> None:
    begin = time.monotonic()
    machine.sleep(1)
    assert time.monotonic() - begin > 0.9


def test_stderr_is_in_the_log(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert machine.succeed("echo complaint >&2; echo fine") == "fine\n"
    assert "complaint" in caplog.text
