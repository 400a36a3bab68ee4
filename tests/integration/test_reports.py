"""What a failed test on real nodes tells: its report, what is kept, and what a boot was waiting for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("can_boot")

HEAD = """
import time
import pytest
from pytest_nspawn import Node

BROKEN = '''
[Unit]
Description=Breaks
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo the cause; exit 3'
'''
HANGING = '''
[Unit]
Description=Hangs for ever
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
'''
"""


def run(pytester: pytest.Pytester, test: str, *options: str, **outcomes: int) -> pytest.RunResult:
    pytester.makepyfile(HEAD + test)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rN", *options)
    result.assert_outcomes(**outcomes)
    return result


def sections(result: pytest.RunResult) -> dict[str, list[str]]:
    """The lines of a report's sections by title; what stands before the first is under an empty one."""
    found: dict[str, list[str]] = {"": []}
    title = ""
    for line in result.outlines:
        if heading := re.fullmatch(r"-+ (\w+: [a-z ]+) -+", line):
            title = heading[1]
        found.setdefault(title, []).append(line)
    return found


def kept_of(lines: list[str]) -> Path:
    """Where a section says that a node's state is kept."""
    return Path(next(line for line in lines if line.startswith("/")).partition(": ")[0])


def test_a_failed_test_tells_what_its_node_did(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        "@pytest.mark.nodes(web=Node(units={'broken.service': BROKEN}))\n"
        "def test_it(web):\n"
        "    web.fail('systemctl start broken.service')\n"
        "    web.succeed('echo words > /root/written; echo told | systemd-cat --identifier=teller')\n"
        "    web.succeed('echo said; echo complained >&2; exit 7')\n",
        failed=1,
    )
    found = sections(result)
    line = next(number for number, text in enumerate(result.outlines) if text.startswith(">"))
    assert result.outlines[line].endswith("web.succeed('echo said; echo complained >&2; exit 7')")
    end = result.outlines.index("", line)
    message = [re.sub(r"\d+\.\d+ s$", "N s", text) for text in result.outlines[line + 1 : end]]
    failure = "command `echo said; echo complained >&2; exit 7` failed (exit code 7, expected exit code 0)"
    assert message == [
        f"E       pytest_nspawn.errors.CommandFailed: web: {failure}",
        "E       duration: N s",
        "E       stdout:",
        "E         said",
        "E       stderr:",
        "E         complained",
    ]
    # The test's own line is the last of the traceback, and the only one.
    assert [text for text in found[""] if re.match(r"\S+\.py:\d+: ", text)] == [result.outlines[end + 1]]
    assert re.fullmatch(r"test_a_failed\w*\.py:\d+: CommandFailed", result.outlines[end + 1])

    assert list(found) == [
        "",
        "web: commands",
        "web: console",
        "web: journal",
        "web: failed units",
        "web: kept state",
    ]
    commands = "\n".join(found["web: commands"])
    for command, code, outputs in (
        ("systemctl start broken.service", 1, r"stderr:\n.*control process exited"),
        ("echo said; echo complained >&2; exit 7", 7, r"stdout:\nsaid\nstderr:\ncomplained"),
    ):
        assert re.search(rf"\$ {re.escape(command)}\n\[exit code {code}, .* s\]\n{outputs}", commands)
    assert any("Reached target" in text for text in found["web: console"])
    assert any("teller" in text and text.endswith("told") for text in found["web: journal"])
    units = "\n".join(found["web: failed units"])
    assert "broken.service - Breaks" in units
    assert "status=3" in units
    assert "]: the cause" in units
    assert "teller" not in units

    kept = kept_of(found["web: kept state"])
    assert (kept / "root/root/written").read_text() == "words\n"
    assert "Reached target" in (kept / "console.log").read_text()
    journal = ["journalctl", f"--directory={kept / 'root/var/log/journal'}", "--output=cat"]
    told = subprocess.run([*journal, "--identifier=teller"], check=True, capture_output=True, text=True)
    assert told.stdout == "told\n"


def test_a_boot_that_never_gets_ready_shows_what_it_was_waiting_for(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        "@pytest.mark.nodes(slow=Node(units={'hanging.service': HANGING}))\n"
        "def test_it(slow):\n"
        "    slow.succeed('true')\n",
        "--nspawn-boot-timeout=3",
        failed=1,
    )
    result.stdout.fnmatch_lines(
        [
            ">       slow.succeed('true')",
            "E *BootError: slow: not ready within its limit of 3 s*; it was waiting for: hanging.service (start)",
            "E * Starting hanging.service - Hangs for ever...",
            "*- slow: console -*",
            "*- slow: journal -*",
            "*Starting hanging.service*",
            "*- slow: kept state -*",
        ]
    )
    assert (kept_of(sections(result)["slow: kept state"]) / "console.log").is_file()


def test_a_boot_failure_that_nobody_asked_about_is_raised_by_teardown(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        "@pytest.mark.nodes(bad=Node(nspawn_options=['--no-such-option']), good=Node())\n"
        "def test_it(bad, good):\n"
        "    good.succeed('true')\n"
        "@pytest.mark.nodes(good=Node())\n"
        "def test_next(good):\n"
        "    good.succeed('true')\n",
        passed=2,
        errors=1,
    )
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_it*",
            "bad: systemd-nspawn ended with exit code 1 before the node was ready*",
            "*unrecognized option '--no-such-option'",
            "*- bad: console -*",
            "*- bad: kept state -*",
        ]
    )


def test_a_node_that_never_started_has_no_kept_state(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        "@pytest.mark.nodes(never=Node(), start=False)\ndef test_it(never):\n    assert never.name == 'other'\n",
        failed=1,
    )
    result.stdout.fnmatch_lines(["[[]the node was never started]"])
    result.stdout.no_fnmatch_line("*kept state*")


def test_a_test_that_ends_while_its_nodes_boot_ends_well(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        "@pytest.mark.parametrize('delay', [0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4])\n"
        "@pytest.mark.nodes(one=Node(), two=Node())\n"
        "def test_it(one, two, delay):\n"
        "    time.sleep(delay)\n",
        "-Werror",
        passed=7,
    )
    result.stderr.no_fnmatch_line("*Traceback*")
