"""Existing NixOS tests as items: collection, outcomes and options, with an engine that boots nothing and no Nix."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pexpect
import pytest

from .conftest import Project

PASSING = 'machine.succeed("true")'
FAILING = """\
machine.succeed("true")

with subtest("well"):
    machine.succeed("true")

with subtest("ill"):
    seen = machine.succeed("hello")
    assert seen == "bye"

with subtest("later"):
    machine.succeed("not reached")
"""


def test_an_argument_is_collected_and_nothing_is_evaluated_before_set_up(project: Project) -> None:
    project.nix("foo.nix", PASSING)
    result = project.run("--collect-only", "-q", "foo.nix")
    result.stdout.fnmatch_lines(["foo.nix::testScript"])
    assert project.everything == []
    project.run("foo.nix", passed=1)
    assert project.record == ["evaluate foo.nix", "boot machine", "start machine", "close machine"]


def test_what_is_asked_for_is_collected_whatever_it_looks_like(project: Project) -> None:
    project.nix("foo.nix", PASSING)
    path = project.pytester.path / "foo.nix"
    path.write_text(path.read_text().replace("nodes.machine", "whatever"))
    project.run("foo.nix::testScript", passed=1)


def test_files_are_only_collected_by_a_glob(project: Project) -> None:
    project.nix("foo.nix", PASSING).nix("bar.nix", PASSING)
    (project.pytester.path / "module.nix").write_text("{ services.nginx.enable = true; }")
    (project.pytester.path / "notes.nix").write_text("# testScript and nodes = are in a comment only\n{ }")
    (project.pytester.path / "block.nix").write_text("/* testScript nodes = */ # {\n{ nodes = 1; }")
    bar = project.pytester.path / "bar.nix"
    bar.write_text(f"# one\n/* two */\n{bar.read_text().partition(chr(10))[2]}")
    (project.pytester.path / "flake.nix").write_text((project.pytester.path / "bar.nix").read_text())
    assert project.run().ret == pytest.ExitCode.NO_TESTS_COLLECTED
    project.pytester.makeini("[pytest]\nnspawn_nix_tests = f*.nix **/b*.nix *.nix\n")
    result = project.run("-v", passed=2)
    result.stdout.fnmatch_lines(["bar.nix::testScript PASSED*", "foo.nix::testScript PASSED*"])


def test_a_glob_is_relative_to_the_ini_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.nix("foo.nix", PASSING)
    below = project.pytester.mkdir("below")
    (below / "far.nix").write_text((project.pytester.path / "foo.nix").read_text())
    project.pytester.makeini("[pytest]\nnspawn_nix_tests = below/*.nix\n")
    monkeypatch.chdir(below)
    project.run("--rootdir", "..", "..", passed=1)


def test_the_ini_file_names_tests_of_a_file_and_checks_of_a_flake(project: Project) -> None:
    project.nix("several.nix", PASSING).nix("foo.nix", PASSING).nix("flake.nix", PASSING)
    names = "*.nix several.nix::one several.nix::two flake.nix::checks.x86_64-linux.web"
    project.pytester.makeini(f"[pytest]\nnspawn_nix_tests = {names}\n")
    result = project.run("--collect-only", "-q")
    assert {line for line in result.outlines if "::" in line} == {
        "flake.nix::checks.x86_64-linux.web",
        "foo.nix::testScript",
        "several.nix::one",
        "several.nix::two",
    }
    project.run("several.nix", passed=2)
    project.run("several.nix::two", passed=1)


@pytest.mark.parametrize("argument", ["flake.nix::checks.x86_64-linux.foo", ".#checks.x86_64-linux.foo"])
@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_check_of_a_flake(project: Project, argument: str, workers: tuple[str, ...]) -> None:
    project.nix("flake.nix", PASSING)
    result = project.run("-v", *workers, argument, passed=1)
    result.stdout.fnmatch_lines(["*flake.nix::checks.x86_64-linux.foo*"])
    assert [line for line in project.record if "evaluate" in line] == [
        f"evaluate {project.pytester.path.name}#checks.x86_64-linux.foo"
    ]


def test_a_check_of_a_flake_in_another_directory(project: Project) -> None:
    project.nix("foo.nix", PASSING)
    below = project.pytester.mkdir("below")
    (project.pytester.path / "foo.nix").rename(below / "flake.nix")
    project.run("below#checks.x86_64-linux.foo", "below/flake.nix::checks.x86_64-linux.bar", passed=2)


def test_a_flake_without_a_check_says_what_to_say(project: Project) -> None:
    project.nix("flake.nix", PASSING)
    result = project.run("flake.nix", errors=1)
    result.stdout.fnmatch_lines(["*which of its checks? Say pytest flake.nix::checks.x86_64-linux.NAME*"])


def test_a_failure_shows_the_lines_of_the_nix_file(project: Project) -> None:
    project.nix("foo.nix", FAILING)
    result = project.run("foo.nix")
    result.stdout.fnmatch_lines(
        [
            "*testScript of foo.nix [[]ill[]]*",
            '*    with subtest("ill"):',
            '>       assert seen == "bye"',
            "E       AssertionError: assert 'out of hello' == 'bye'",
            "E         - bye",
            "E         + out of hello",
            "foo.nix:13: AssertionError",
            "the testScript ends at its subtest 'ill', which failed",
        ]
    )
    result.stdout.no_fnmatch_line("*driver.py*")
    assert "not reached" not in result.stdout.str()


def test_a_failure_outside_subtests_shows_the_last_lines_before_it(project: Project) -> None:
    lines = [f"number = {number}" for number in range(40)]
    project.nix(
        "foo.nix", "\n".join([*lines, "def check(value):", "    assert value == 7", "", "check(number)"])
    )
    result = project.run("foo.nix", failed=1)
    result.stdout.fnmatch_lines(
        ["*number = 39", "*", ">*check(number)", "*", "foo.nix:49:*", "*assert value == 7*"]
    )
    result.stdout.no_fnmatch_line("*number = 20")


def test_a_failed_command_ends_in_the_script(project: Project) -> None:
    project.nix("foo.nix", 'machine.succeed("true")\nmachine.succeed("false")')
    result = project.run("foo.nix", failed=1)
    result.stdout.fnmatch_lines(['>   machine.succeed("false")', "foo.nix:7: CommandFailed"])
    result.stdout.fnmatch_lines(["*machine: commands*"])


def test_a_failed_assertion_of_t_ends_in_the_script(project: Project) -> None:
    project.nix("foo.nix", "def check(value):\n    t.assertEqual(value, 7)\n\ncheck(6)")
    result = project.run("foo.nix", failed=1)
    result.stdout.fnmatch_lines(
        [">   check(6)", ">       t.assertEqual(value, 7)", "E       AssertionError: 6 != 7", "foo.nix:7: *"]
    )
    result.stdout.no_fnmatch_line("*unittest*")


def test_a_syntax_error_is_told_at_its_line(project: Project) -> None:
    project.nix("foo.nix", 'machine.succeed("true")\nif True\n')
    result = project.run("foo.nix", errors=1)
    result.stdout.fnmatch_lines(["*foo.nix:7: the testScript is no Python: expected ':'*"])
    assert "boot machine" not in project.record


def test_a_problem_of_evaluation_is_the_whole_report(project: Project) -> None:
    project.nix("foo.nix", PASSING, said={"problem": "undefined variable 'pkg'"})
    result = project.run("foo.nix", errors=1)
    result.stdout.fnmatch_lines(["foo.nix::testScript: undefined variable 'pkg': 'foo.nix'"])


def test_subtests_are_reported_and_the_script_stops_at_a_failing_one(project: Project) -> None:
    project.nix("foo.nix", FAILING)
    result = project.run("-v", "foo.nix")
    result.stdout.fnmatch_lines(
        [
            "foo.nix::testScript SUBPASSED[[]well[]]*",
            "foo.nix::testScript SUBFAILED[[]ill[]]*",
            "foo.nix::testScript FAILED*",
        ]
    )
    assert "SUBPASSED[later]" not in result.stdout.str()


@pytest.mark.parametrize("how", ["option", "ini"])
def test_the_script_may_go_on_after_a_failing_subtest(project: Project, how: str) -> None:
    project.nix("foo.nix", FAILING + '    assert "also ill" == "ill"')
    if how == "ini":
        project.pytester.makeini("[pytest]\nnspawn_continue_subtests = true\n")
    result = project.run("-v", "foo.nix", *(["--nspawn-continue-subtests"] if how == "option" else []))
    result.stdout.fnmatch_lines(
        ["*SUBFAILED[[]ill[]]*", "*SUBFAILED[[]later[]]*", "*contains 2 failed subtests*"]
    )


def test_an_error_that_the_script_handles_is_no_failure_of_the_script(project: Project) -> None:
    project.nix(
        "foo.nix",
        "try:\n    with subtest('a'):\n        assert 1 == 2\nexcept AssertionError as error:\n    print(error)",
    )
    result = project.run("-v", "foo.nix")
    result.stdout.fnmatch_lines(["*SUBFAILED[[]a[]]*", "*contains 1 failed subtest*"])


def test_junit_has_one_testcase_with_a_property_for_each_subtest(project: Project) -> None:
    project.nix("foo.nix", FAILING)
    project.run("--junitxml=out.xml", "foo.nix")
    cases = list(ET.parse(project.pytester.path / "out.xml").iter("testcase"))
    assert [(case.get("classname"), case.get("name")) for case in cases] == [("foo.nix", "testScript")]
    properties = {each.get("name"): each.get("value", "") for each in cases[0].iter("property")}
    assert list(properties) == ["subtest[well]", "subtest[ill]"]
    assert properties["subtest[well]"].startswith("passed, 0.")
    assert properties["subtest[ill]"].startswith("failed, 0.")
    assert properties["subtest[ill]"].endswith(" s")


def test_what_only_a_virtual_machine_can_do_is_a_skip_before_anything_boots(project: Project) -> None:
    said = {"vm_only": {"machine": ["boot.kernelPackages"]}}
    project.nix("foo.nix", 'machine.succeed("true")\nmachine.screenshot("desktop")', said=said)
    result = project.run("-rs", "foo.nix", skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*foo.nix:1: foo needs a virtual machine: node machine: boot.kernelPackages (*); foo.nix:7: screenshot() (*"
        ]
    )
    assert "boot machine" not in project.record


def test_a_method_of_that_name_of_the_scripts_own_is_no_obstacle(project: Project) -> None:
    project.nix("foo.nix", "class Camera:\n    def screenshot(self): pass\n\nCamera().screenshot()")
    project.run("foo.nix", passed=1)


def test_k_x_and_lf(project: Project) -> None:
    project.nix("foo.nix", FAILING).nix("bar.nix", PASSING).nix("zoo.nix", PASSING)
    files = ("foo.nix", "bar.nix", "zoo.nix")
    project.run("-k", "bar or zoo", *files, passed=2, deselected=1)
    result = project.run("-x", *files)
    result.stdout.fnmatch_lines(["*stopping after 2 failures*"])
    assert not [line for line in project.record if "bar.nix" in line]
    run = project.pytester.runpytest_inprocess
    run(*files)
    result = run("--lf", "-v", *files)
    assert "foo.nix::testScript" in result.stdout.str()
    assert "bar.nix::testScript" not in result.stdout.str()


def test_set_up_alone_evaluates_and_boots_nothing(project: Project) -> None:
    project.nix("foo.nix", PASSING)
    for option in ("--setup-plan", "--setup-only"):
        result = project.run(option, "foo.nix")
        result.stdout.fnmatch_lines(["*foo.nix::testScript (fixtures used:*"])
        assert project.everything == []


def test_workers(project: Project) -> None:
    project.nix("foo.nix", FAILING).nix("bar.nix", PASSING)
    result = project.run("-n", "2", "foo.nix", "bar.nix")
    result.stdout.fnmatch_lines(["SUBFAILED[[]ill[]] foo.nix::testScript*", "*2 failed, 1 passed*"])


def test_pdb_opens_once_at_the_failing_line(project: Project) -> None:
    project.nix("foo.nix", FAILING)
    child = project.pytester.spawn_pytest("-p no:cacheprovider --pdb foo.nix")
    child.expect("foo.nix")
    child.expect(r"\(Pdb\)")
    child.sendline("p seen")
    child.expect("out of hello")
    child.sendline("c")
    child.expect("testScript ends at its subtest")
    assert child.before is not None
    assert b"Entering PDB" not in child.before
    child.expect(pexpect.EOF)


def test_a_breakpoint_opens_the_debugger_in_the_script(project: Project) -> None:
    project.nix("foo.nix", 'answer = 42\ndebug.breakpoint()\nmachine.succeed("true")')
    child = project.pytester.spawn_pytest("-p no:cacheprovider foo.nix")
    child.expect(r"foo.nix\(8\)")
    child.expect(r"\(Pdb\)")
    child.sendline("p answer + 1")
    child.expect("43")
    child.sendline("p machine.succeed('whoami')")
    child.expect("out of whoami")
    child.sendline("c")
    child.expect("1 passed")
    child.expect(pexpect.EOF)


def test_globals_by_other_names(project: Project) -> None:
    said = {"nodes": {"left-hand": {}, "right": {}}, "host_names": {"front": "right"}}
    project.nix(
        "foo.nix",
        """
        assert left_hand.name == "left-hand"
        assert front is right
        assert [each.name for each in machines] == ["left-hand", "right"]
        try:
            machine
        except NameError:
            pass
        else:
            raise AssertionError("which?")
        """,
        said=said,
    )
    project.run("foo.nix", passed=1)


def test_assertions_may_stay_plain(project: Project) -> None:
    project.nix("foo.nix", FAILING)
    assert "+ out of hello" not in project.run("--assert=plain", "foo.nix").stdout.str()


def test_a_script_whose_lines_are_elsewhere_is_numbered_by_itself(project: Project) -> None:
    project.nix("foo.nix", 'machine.succeed("true")\nassert machine.name == "other"')
    # As where the script comes from a function of another file.
    (project.pytester.path / "conftest.py").write_text(
        "from fake_engine import *\nimport dataclasses\nimport fake_engine\n"
        "def elsewhere(reference, evaluate=fake_engine.evaluate):\n"
        "    return dataclasses.replace(evaluate(reference), file=None)\n"
        "fake_engine.evaluate = elsewhere\n"
    )
    result = project.run("foo.nix", failed=1)
    result.stdout.fnmatch_lines(
        ['>   assert machine.name == "other"', "*<testScript of foo>:2: AssertionError"]
    )


def test_ini_options_are_known(project: Project, tmp_path: Path) -> None:
    project.nix("foo.nix", PASSING)
    result = project.run("--help")
    result.stdout.fnmatch_lines(["*--nspawn-continue-subtests*", "*nspawn_nix_tests*"])


@pytest.mark.parametrize(
    ("said", "factor", "seconds"), [(None, "1", "3600.0"), (None, "2", "7200.0"), (70, "2", "70")]
)
def test_the_global_timeout_is_an_hour_unless_the_test_says(
    project: Project, said: int | None, factor: str, seconds: str
) -> None:
    script = f"assert str(driver.global_timeout) == '{seconds}'"
    project.nix("foo.nix", script, said={"timeout": said} if said else {})
    project.run("foo.nix", f"--nspawn-timeout-factor={factor}", passed=1)


def test_the_global_timeout_is_a_failure_of_the_script(project: Project) -> None:
    project.nix("foo.nix", 'while True:\n    machine.succeed("true")', said={"timeout": 0.2})
    result = project.run("foo.nix", failed=1)
    result.stdout.fnmatch_lines(
        ['>       machine.succeed("true")', "*TimeoutExceeded: *the testScript (its global time-out)*"]
    )


def test_the_fixture_subtest_is_for_tests_in_python_too(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(web=Node())\n"
        "def test_it(web, subtest):\n"
        "    with subtest('one'):\n        web.succeed('true')\n"
        "    with subtest('two'):\n        assert web.name == 'other'\n"
        "    with subtest('three'):\n        web.succeed('not reached')\n"
    )
    result = project.run("-v")
    result.stdout.fnmatch_lines(["*SUBPASSED[[]one[]]*", "*SUBFAILED[[]two[]]*", "*FAILED*"])
    assert "not reached" not in result.stdout.str().partition("web: commands")[2]
    result = project.run("-v", "--nspawn-continue-subtests")
    result.stdout.fnmatch_lines(["*SUBPASSED[[]three[]]*", "*contains 1 failed subtest*"])
    text = result.stdout.str()
    assert text.count("- web: console -") == 1
