from __future__ import annotations

import pickle

import pytest

from pytest_nspawn import errors
from pytest_nspawn.model import CommandResult


def result(**changes: object) -> CommandResult:
    values: dict[str, object] = {
        "command": "curl http://server/",
        "exit_code": 22,
        "stdout": "",
        "stderr": "curl: (22) error 404\n",
        "duration": 0.0123,
        "node": "client",
    }
    return CommandResult(**(values | changes))  # type: ignore[arg-type]


EVERY = [
    errors.NspawnError(),
    errors.ConfigError(
        problem="the size is malformed", node="web", value="12", hint='say "12M"', test="t.py::t"
    ),
    errors.HostError(problem="systemd-nspawn is missing", mend="apt-get install systemd-container"),
    errors.SandboxError(operation="mount tmpfs on /run", problem="EPERM"),
    errors.MachineError(node="web", problem="no such unit"),
    errors.BootError(
        node="web", problem="did not boot", waiting_for="Reached x", console="a\nb", seconds=1.5
    ),
    errors.NixError(
        problem="does not build", node="web", message="no\nway", place="web.nix:1", hint="nix log x"
    ),
    errors.NotRunningError(node="web"),
    errors.UnsupportedError(
        node="web", method="screenshot", reason="no screen", way_out="use get_console_log()"
    ),
    errors.RequestedAssertionFailed(message="is inactive", node="web", cause=OSError(2, "gone")),
    errors.CommandFailed(result=result()),
    errors.TimeoutExceeded(what="port 80", elapsed=1.234, limit=900, last="refused", node="web"),
]


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_everything_pickles(error: Exception) -> None:
    error.add_note("while booting")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__notes__ == error.__notes__
    assert {k: repr(v) for k, v in vars(again).items()} == {k: repr(v) for k, v in vars(error).items()}


def test_the_list_is_complete() -> None:
    assert {type(error).__name__ for error in EVERY} == set(errors.__all__)


class AwkwardError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_values_that_do_not_pickle_arrive_as_their_repr() -> None:
    function = lambda: None  # noqa: E731 (what a user may hand in by mistake)
    config = errors.ConfigError(problem="p", value=function)
    assert pickle.loads(pickle.dumps(config)).value == repr(function)
    failed = errors.RequestedAssertionFailed(message="m", cause=AwkwardError(1, 2))
    assert repr(failed.cause) in str(pickle.loads(pickle.dumps(failed)).cause)


def test_config_error_names_test_node_value_and_way_out() -> None:
    error = errors.ConfigError(problem="malformed size", node="web", value="12", hint='say "12M"')
    assert str(error) == "node 'web': malformed size: '12'; say \"12M\""
    error.test = "test_a.py::test_b"
    assert str(error).startswith("test_a.py::test_b: node 'web'")
    assert len(str(errors.ConfigError(problem="p", value="x" * 9000))) < 300


def test_boot_error_shows_what_it_waited_for_and_the_console() -> None:
    error = errors.BootError(
        node="web", problem="not ready", waiting_for="Starting x", console="one\ntwo", seconds=120
    )
    assert (
        str(error) == "web: not ready after 120.00 s; it was waiting for: Starting x\nconsole:\n  one\n  two"
    )
    assert repr(error) == "BootError('web: not ready after 120.00 s; it was waiting for: Starting x')"


def test_command_failed_reads_like_a_failed_assertion() -> None:
    error = errors.CommandFailed(result=result())
    assert str(error).splitlines() == [
        "client: command `curl http://server/` failed (exit code 22, expected exit code 0)",
        "duration: 0.012 s",
        "stdout: (empty)",
        "stderr:",
        "  curl: (22) error 404",
    ]
    assert isinstance(error, AssertionError)


def test_an_unexpected_success_says_so() -> None:
    error = errors.CommandFailed(result=result(exit_code=0), expected="a non-zero exit code")
    assert "unexpectedly succeeded (exit code 0, expected a non-zero exit code)" in str(error)


def test_long_commands_and_outputs_are_cut_and_escapes_are_shown() -> None:
    error = errors.CommandFailed(
        result=result(command="set -x\nfalse", stdout="a" * 20_000 + "end\n", stderr="\x1b[31mred")
    )
    lines = str(error).splitlines()
    assert lines[0].startswith("client: command `set -x...` failed")
    assert lines[2:5] == ["command:", "  set -x", "  false"]
    assert "characters before this are left out" in str(error)
    assert "aend" in str(error)
    assert "\\x1b[31mred" in str(error)
    assert len(str(error)) < errors.OUTPUT_LIMIT + 1000


def test_time_out_names_elapsed_limit_and_last_state() -> None:
    error = errors.TimeoutExceeded(what="port 80 to open", elapsed=1.234, limit=900, last="refused")
    assert str(error) == "action timed out after 1.23 s (limit 900 s): port 80 to open; last state: refused"
