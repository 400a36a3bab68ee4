"""What a failed test's report tells, what is kept, and that no boot failure is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_nspawn.plugin import evidence

from .conftest import Project

A = "@pytest.mark.nodes(a=Node())\n"


def test_a_failed_command_reads_like_a_failed_assertion(project: Project) -> None:
    project.write(A + "def test_it(a):\n    a.succeed('true')\n    a.succeed('false --why')\n")
    result = project.run(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       a.succeed('false --why')",
            "E       *CommandFailed: a: command `false --why` failed (exit code 1, expected exit code 0)",
            "E       *0.100 s",
            "E       *stdout:*",
            "E       *out of false --why",
            "test_it.py:7: CommandFailed",
        ]
    )
    result.stdout.no_fnmatch_line("*fake_engine.py*")


def test_the_report_has_a_section_a_topic_and_node(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(a=Node(), b=Node())\ndef test_it(a, b):\n    a.succeed('first')\n    assert 0\n"
    )
    project.run(failed=1).stdout.fnmatch_lines(
        [
            "*- a: commands -*",
            "$ first",
            "*- a: console -*",
            "[[]... * left out]",
            "* end of the console of a",
            "*- a: journal -*",
            "the journal of a",
            "*- a: kept state -*",
            "/*/nspawn/test_it.py-test_it/a: its root*",
            "*- b: console -*",
        ]
    )


def test_a_test_without_nodes_and_a_passing_one_have_no_sections(project: Project) -> None:
    project.write(A + "def test_it(a): pass\ndef test_other():\n    assert 0\n")
    result = project.run("-rP", passed=1, failed=1)
    result.stdout.no_fnmatch_line("*- a: *")
    assert project.record == ["boot a", "start a", "close a"]


def test_a_failing_fixture_has_the_sections_too(project: Project) -> None:
    project.write("@pytest.fixture\ndef page(a):\n    assert 0\n" + A + "def test_it(page): pass\n")
    project.run(errors=1).stdout.fnmatch_lines(["*- a: journal -*"])


def test_a_node_that_cannot_be_asked_does_not_replace_the_error(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "DEADLINE", 0.1)
    project.write(
        "@pytest.mark.nodes(mute=Node(), hanging=Node())\ndef test_it(nodes):\n    assert 'the cause' == 0\n"
    )
    project.run(failed=1).stdout.fnmatch_lines(
        [
            "*'the cause' == 0*",
            "*- hanging: console -*",
            "[[]not to be had: the node did not answer within 0.1 s]",
            "*- mute: console -*",
            "[[]not to be had: RuntimeError('the node is mute')]",
        ]
    )


def test_sections_hold_at_most_64_kib() -> None:
    assert evidence.tail("short") == "short"
    for text in ("x" * 100_000, "ä" * 50_000):
        cut = evidence.tail(text)
        assert len(cut.encode()) <= 64 * 1024
        assert cut.startswith("[... ")
        assert cut.endswith(text[-100:])


def test_the_failed_tests_of_a_shared_cluster_have_one_kept_state(project: Project) -> None:
    project.write(
        "pytestmark = pytest.mark.nodes(a=Node(), scope='module')\n"
        "def test_1(a):\n    assert 0\ndef test_2(a):\n    assert 0\ndef test_3(a): pass\n"
    )
    result = project.run(failed=2, passed=1)
    kept = set(re.findall(r"^(/.*): its root", result.stdout.str(), re.MULTILINE))
    assert len(kept) == 1
    assert (Path(*kept) / "console.log").read_text() == "the console of a"
    assert project.record.count("keep a") == 1


@pytest.mark.parametrize(("keep", "passed", "failed"), [("never", 0, 0), ("failed", 0, 1), ("always", 1, 1)])
def test_keep(project: Project, keep: str, passed: int, failed: int) -> None:
    project.write(A + "def test_it(a): pass\n").run(f"--nspawn-keep={keep}", passed=1)
    assert project.record.count("keep a") == passed
    project.write(A + "def test_it(a):\n    assert 0\n")
    result = project.run(f"--nspawn-keep={keep}", failed=1)
    assert project.record.count("keep a") == failed
    assert ("a: kept state" in result.stdout.str()) == bool(failed)


def test_a_boot_failure_is_raised_by_the_first_command(project: Project) -> None:
    project.write("@pytest.mark.nodes(broken=Node())\ndef test_it(broken):\n    broken.succeed('true')\n")
    result = project.run(failed=1)
    result.stdout.fnmatch_lines(
        [">       broken.succeed('true')", "E   *BootError: broken: it never got up*"]
    )


def test_a_boot_failure_that_no_command_met_is_raised_by_teardown(project: Project) -> None:
    project.write("@pytest.mark.nodes(broken=Node())\ndef test_it(broken): pass\n")
    result = project.run(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_it*",
            "broken: it never got up",
            "*- broken: journal -*",
            "*- broken: kept state -*",
        ]
    )
    assert project.record[-2:] == ["keep broken", "close broken"]


def test_no_teardown_step_hides_another(project: Project) -> None:
    project.write("@pytest.mark.nodes(**{'broken-sticky': Node()})\ndef test_it(nodes): pass\n")
    result = project.run(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*BootError: broken-sticky: it never got up*", "*RuntimeError: a node would not stop*"]
    )


def test_nodes_booted_at_run_time_are_told_of_and_kept(project: Project) -> None:
    project.write(
        "def test_it(nspawn):\n    with nspawn.boot(a=Node()) as nodes:\n        assert 'cause' == 0\n"
    )
    project.run(failed=1).stdout.fnmatch_lines(["*'cause' == 0*", "*- a: journal -*", "*- a: kept state -*"])
    assert project.record == ["boot a", "start a", "keep a", "close a"]


def test_a_boot_failure_at_run_time_does_not_replace_the_tests_own_error(project: Project) -> None:
    project.write("def test_it(nspawn):\n    with nspawn.boot(broken=Node()):\n        assert 'cause' == 0\n")
    result = project.run(failed=1)
    result.stdout.fnmatch_lines(
        ["*'cause' == 0*", "E*And when the nodes were stopped: broken: it never got up"]
    )
    project.write("def test_it(nspawn):\n    with nspawn.boot(broken=Node()):\n        pass\n")
    project.run(failed=1).stdout.fnmatch_lines(["broken: it never got up"])


@pytest.mark.parametrize("how", ["mark", "run time"])
def test_a_machine_that_cannot_run_nodes(project: Project, how: str) -> None:
    if how == "mark":
        project.write("@pytest.mark.nodes(a=Node(image='unavailable'))\ndef test_it(a): pass\n")
        outcomes = {"errors": 1}
    else:
        project.write("def test_it(nspawn):\n    with nspawn.boot(a=Node(image='unavailable')): pass\n")
        outcomes = {"failed": 1}
    project.run(**outcomes).stdout.fnmatch_lines(["*no user namespaces; mend it with: sysctl -w*"])
    project.run("-rs", "--nspawn-unavailable=skip", skipped=1).stdout.fnmatch_lines(
        ["SKIPPED*no user namespaces; mend*"]
    )


def test_bad_input_at_run_time_names_the_test(project: Project) -> None:
    project.write(
        "def test_it(nspawn):\n    with pytest.raises(ConfigError, match='test_it.py::test_it: node .a.: there is no such'):\n"
        "        with nspawn.boot(a='missing.nix'): pass\n"
    ).run(passed=1)


@pytest.mark.parametrize("nodes", ["a=Node(), b=Node()"])
def test_shell_on_failure(project: Project, nodes: str) -> None:
    project.write(
        f"@pytest.mark.nodes({nodes})\ndef test_it(a, b):\n    b.succeed('true')\n    assert 0\n"
        f"@pytest.mark.nodes({nodes})\ndef test_command(a, b):\n    b.succeed('true')\n    b.succeed('true')\n    a.succeed('false')\n"
        f"@pytest.mark.nodes({nodes})\ndef test_fine(a): pass\ndef test_none():\n    assert 0\n"
    )
    result = project.run("--nspawn-shell", failed=3, passed=1)
    shells = [line for line in project.record if line.startswith(("shell", "close"))]
    assert shells == ["shell b", "close a b", "shell a", "close a b", "close a b"]
    result.stdout.fnmatch_lines(
        ["*> shell on b (running too: a) >*", "the shell of b", "*< end of the shell on b <*"]
    )


def test_shell_is_refused_with_workers(project: Project) -> None:
    project.write(A + "def test_it(a): pass\n")
    result = project.run("--nspawn-shell", "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --nspawn-shell needs a terminal of its own*"])
