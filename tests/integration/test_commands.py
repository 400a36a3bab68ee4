"""Commands to a node: exit codes, outputs, limits, and what must not hang or harm the harness."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_nspawn import CommandFailed, Machine, NotRunningError
from pytest_nspawn.cluster import Engine
from pytest_nspawn.errors import ConfigError, HostError, MachineError, RequestedAssertionFailed
from pytest_nspawn.model import Node, Topology
from pytest_nspawn.shell import Shell

SERVICE = (
    "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'cat /proc/self/status > /status'\n"
)


@pytest.fixture(scope="module")
def machine(engine: Engine) -> Iterator[Machine]:
    node = Node(
        units={"probe.service": SERVICE, "lame.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n"}
    )
    with engine.boot(Topology({"machine": node})) as nodes:
        yield nodes["machine"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("echo out; echo err >&2", (0, "out\n")),
        ("exit 7", (7, "")),
        ("false | true", (1, "")),
        ("echo $undefined", (127, "")),
        ("kill -9 $$", (137, "")),
        ("exec echo replaced", (0, "replaced\n")),
        ("printf '\\377\\200a'", (0, "\ufffd\ufffda")),
        ("cat", (0, "")),
        ("exec 1>&-; exec 2>&-; exit 3", (3, "")),
        ("sleep 60 >/dev/null 2>&1 & echo begun", (0, "begun\n")),
        ("sleep 60 >/dev/null & echo stderr is held", (0, "stderr is held\n")),
        ("cat <<'END'\nseveral\nlines\nEND", (0, "several\nlines\n")),
        ("# a comment\necho after", (0, "after\n")),
        ("echo noise > /dev/stderr; echo value > /dev/stdout", (0, "value\n")),
        (f"echo {'x' * 300_000} | wc -c", (0, "300001\n")),
    ],
)
def test_execute(machine: Machine, command: str, expected: tuple[int, str]) -> None:
    code, text = machine.execute(command, timeout=60)
    # An unset variable is bash's own exit code, 1 or 127 by version.
    assert (code, text) == expected or (expected[0] == 127 and code in (1, 127))


def test_a_gigabyte_of_output_arrives_whole(machine: Machine) -> None:
    result = machine.run("head -c 1G /dev/zero | tr '\\0' x", timeout=120)
    assert (result.exit_code, len(result.stdout)) == (0, 1 << 30)
    assert len(machine.history[-1].stdout) < 1 << 17


def test_a_command_that_is_too_slow_is_ended(machine: Machine) -> None:
    assert machine.execute("echo begun; trap '' TERM; sleep 60; echo ended", timeout=2) == (124, "begun\n")
    machine.wait_until_fails("pgrep --full 'sleep 6[0]; echo ended'", timeout=60)


def test_without_checks_nothing_is_waited_for(machine: Machine) -> None:
    assert machine.execute("sleep 60", check_output=False) == (-2, "")
    assert machine.execute("echo text; exit 5", check_return=False) == (-1, "text\n")


def test_succeed_and_fail_tell_all_there_is(machine: Machine) -> None:
    assert machine.succeed("echo one", "echo two") == "one\ntwo\n"
    assert machine.fail("echo no; false") == "no\n"
    with pytest.raises(CommandFailed) as caught:
        machine.succeed("echo shown; echo complaint >&2; exit 9")
    text = str(caught.value)
    for part in ("machine", "exit code 9", "shown", "complaint", "duration"):
        assert part in text
    with pytest.raises(CommandFailed, match="unexpectedly succeeded"):
        machine.fail("true")
    assert caught.value.__suppress_context__


def test_run_takes_users_variables_directories_and_input(machine: Machine) -> None:
    assert machine.run(["printf", "%s|", "a b", "$c"]).stdout == "a b|$c|"
    assert machine.run("id -un; id -Gn; echo $HOME", user="daemon").stdout.split()[0] == "daemon"
    assert (
        machine.run("echo to > /dev/stderr; echo $GREETING; pwd", env={"GREETING": "it's"}, cwd="/var").stdout
        == "it's\n/var\n"
    )
    assert machine.run("tr a-z A-Z", stdin="shout").stdout == "SHOUT"
    assert machine.run("head -c 3", stdin=b"x" * 5_000_000).stdout == "xxx"
    with pytest.raises(ConfigError, match="no such user"):
        machine.run("true", user="nobody-of-that-name")


def test_popen_runs_beside_the_test(machine: Machine) -> None:
    with machine.popen("echo ready; read line; echo got $line; exit 4", stdin=True) as process:
        assert process.stdout.readline() == b"ready\n"
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.write(b"it\n")
        assert process.stdout.read() == b"got it\n"
        assert process.wait(60) == 4
    with machine.popen("sleep 60") as process:
        process.terminate()
        assert process.wait(60) == 128 + 15


def test_commands_from_many_threads(machine: Machine) -> None:
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda number: machine.succeed(f"echo {number}; sleep 0.05"), range(64)))
    assert results == [f"{number}\n" for number in range(64)]


def test_a_change_of_the_profile_is_seen_by_the_next_command(machine: Machine) -> None:
    machine.succeed("true", "echo 'export FLAVOUR=vanilla' > /etc/profile.d/flavour.sh")
    assert machine.succeed("echo $FLAVOUR") == "vanilla\n"
    machine.succeed("echo 'export FLAVOUR=lemon' > /etc/profile.d/flavour.sh")
    assert machine.succeed("echo $FLAVOUR") == "lemon\n"


def test_a_command_has_no_more_privileges_than_a_service(machine: Machine) -> None:
    machine.succeed("systemctl start probe.service")

    def field(text: str, name: str) -> str:
        return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:"))

    service, command = machine.read_text("/status"), machine.succeed("cat /proc/self/status")
    agent = machine.succeed("cat /proc/$PPID/status")
    for text in (command, agent):
        assert int(field(text, "CapBnd"), 16) & ~int(field(service, "CapBnd"), 16) == 0
        assert int(field(text, "CapEff"), 16) & ~int(field(service, "CapEff"), 16) == 0
    # The agent holds its socket, its pipes and nothing of the machine's.
    links = machine.execute("ls -l /proc/$PPID/fd 2>&1; ls -l /proc/$PPID/exe 2>&1")[1]
    assert "/work" not in links
    assert "python" not in links


def test_waits_for_commands(machine: Machine) -> None:
    threading.Timer(0.3, machine.succeed, ["touch /tmp/appeared"]).start()
    machine.wait_until_succeeds("test -e /tmp/appeared", timeout=60)
    threading.Timer(0.3, machine.succeed, ["rm /tmp/appeared"]).start()
    machine.wait_until_fails("test -e /tmp/appeared", timeout=60)
    with pytest.raises(RequestedAssertionFailed, match="timed out"):
        machine.wait_until_succeeds("false", timeout=0.3)


def test_units(machine: Machine) -> None:
    machine.wait_for_unit("multi-user.target")
    machine.require_unit_state("systemd-journald.service")
    with pytest.raises(RequestedAssertionFailed):
        machine.require_unit_state("systemd-journald.service", "inactive")
    info = machine.get_unit_info("systemd-networkd.service")
    assert (
        info["ActiveState"]
        == machine.get_unit_property("systemd-networkd.service", "ActiveState")
        == "active"
    )
    assert machine.units["systemd-networkd.service"].active_state == "active"
    machine.execute("systemctl start lame.service")
    with pytest.raises(RequestedAssertionFailed, match="failed"):
        machine.wait_for_unit("lame.service", timeout=60)
    with pytest.raises(RequestedAssertionFailed, match=r"inactive|no pending|not-found"):
        machine.wait_for_unit("absent.service", timeout=60)
    assert machine.systemctl("is-active systemd-journald.service") == (0, "active\n")
    assert machine.start_job("probe.service")[0] == 0
    assert machine.stop_job("probe.service")[0] == 0
    machine.succeed("systemctl daemon-reexec")
    machine.wait_for_unit("systemd-journald.service", timeout=60)


def test_after_the_end_every_command_says_so(engine: Engine) -> None:
    with engine.boot(Topology({"machine": None})) as nodes:
        machine = nodes["machine"]
        machine.shutdown()
        assert not machine.is_up()
        with pytest.raises(NotRunningError, match="start"):
            machine.succeed("true")


def test_a_node_without_a_process_to_spare_says_so_and_works_on(engine: Engine) -> None:
    topology = Topology({"machine": Node(tasks=60)})
    try:
        engine.check(topology)
    except HostError as error:
        pytest.skip(str(error))
    with engine.boot(topology) as nodes, contextlib.ExitStack() as stack:
        machine = nodes["machine"]
        running = [stack.enter_context(machine.popen(["sleep", "1000"]))]
        with pytest.raises(MachineError, match=r"no process could be started.*Node\(tasks=\.\.\.\)"):
            while len(running) < 100:
                running.append(stack.enter_context(machine.popen(["sleep", "1000"])))
        # By now the agent has tried to have a shell ready for the next command.
        with pytest.raises(TimeoutError):
            running[0].wait(0.2)
        for process in running:
            process.kill()
            assert process.wait(60) == 137
        assert machine.succeed("echo again") == "again\n"


def test_who_kills_every_shell_harms_no_other_command(machine: Machine) -> None:
    every_shell = """
        for process in /proc/[0-9]*; do
            read -r name < "$process/comm" || continue
            [[ $name != bash || $process == "/proc/$$" ]] || kill -9 "${process#/proc/}"
        done
        kill -9 $$
    """
    for number in range(20):
        # The one that waits for the next command is dead, too.
        assert machine.run(every_shell).exit_code == 137
        assert machine.succeed(f"echo {number}") == f"{number}\n"


def test_an_agent_that_fails_says_why_and_is_replaced(machine: Machine) -> None:
    shell = machine._container.shell()
    assert isinstance(shell, Shell)
    with machine.popen("sleep 1000") as running:
        with pytest.raises(NotRunningError, match=r"the agent failed: (?s:.*)_op_mistake"):
            shell.ask("mistake")
        with pytest.raises(NotRunningError, match="nobody saw 'sleep 1000' end"):
            running.wait(60)
    assert machine.succeed("echo again") == "again\n"
