"""A testScript's lines in its .nix file, and what it asks of a virtual machine."""

from __future__ import annotations

import textwrap
import traceback
from pathlib import Path

import pytest

from pytest_nspawn.driver import Script, locate, vm_only_calls
from pytest_nspawn.errors import ConfigError


def nix(
    tmp_path: Path, script: str, head: str = "{ ... }:\n{\n  testScript = ''\n", margin: str = "    "
) -> Path:
    path = tmp_path / "test.nix"
    path.write_text(f"{head}{textwrap.indent(script, margin)}  '';\n}}\n")
    return path


def lines_of(script: Script) -> dict[str, int]:
    return {
        text: script.at(number) for number, text in enumerate(script.text.splitlines(), 1) if text.strip()
    }


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    text = "one = 1\n\ndef two():\n    return 3\n"
    script = locate(text, file=nix(tmp_path, text), line=None, name="x")
    assert script.filename == str(tmp_path / "test.nix")
    assert lines_of(script) == {"one = 1": 4, "def two():": 6, "    return 3": 7}


@pytest.mark.parametrize("name", ["script.py", "../common.nix"])
def test_lines_are_those_of_a_file_that_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "tests").mkdir()
    path = tmp_path / "tests/test.nix"
    path.write_text(f"{{ other = ../absent.nix; testScript = f ./{name}; }}\n".replace("./../", "../"))
    there = (tmp_path / "tests" / name).resolve()
    there.write_text("# of others, too\none = 1\ntwo = 2\n")
    script = locate("one = 1\ntwo = 2\n", file=path, line=None, name="x")
    assert script.filename == str(there)
    assert lines_of(script) == {"one = 1": 2, "two = 2": 3}


def test_values_that_nix_puts_in_do_not_move_what_follows(tmp_path: Path) -> None:
    path = nix(tmp_path, 'first = "${toString 1}"\n${common}\nlast = 3\nescaped = "\'\'${x}"\n')
    given = 'first = "1"\nimport os\nimport sys\nimport re\nlast = 3\nescaped = "${x}"\n'
    script = locate(given, file=path, line=None, name="x")
    found = lines_of(script)
    assert (found['first = "1"'], found["last = 3"], found['escaped = "${x}"']) == (4, 6, 7)
    assert 4 <= found["import sys"] <= 6


def test_the_script_is_told_from_another_that_begins_alike(tmp_path: Path) -> None:
    path = tmp_path / "test.nix"
    path.write_text(
        "''\n  start_all()\n  other()\n''\n''\n  start_all()\n  machine.succeed(1)\n  more()\n''\n"
    )
    script = locate("start_all()\nmachine.succeed(1)\nmore()\n", file=path, line=None, name="x")
    assert script.lines == (6, 7, 8)


def test_the_line_that_nix_tells_decides_between_two_that_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "test.nix"
    path.write_text("''\n  start_all()\n  check()\n''\n''\n  start_all()\n  check()\n''\n")
    for line, expected in ((1, (2, 3)), (5, (6, 7))):
        assert locate("start_all()\ncheck()\n", file=path, line=line, name="x").lines == expected


@pytest.mark.parametrize("text", ["machine.succeed('x')\n", "\n\n"])
def test_a_script_from_elsewhere_is_a_file_of_its_own(tmp_path: Path, text: str) -> None:
    path = nix(tmp_path, "something else\nentirely\n")
    for file in (path, tmp_path / "absent.nix", None):
        script = locate(text, file=file, line=3, name="foo")
        assert script.filename == "<testScript of foo>"
        assert script.at(1) == 1


def test_a_traceback_has_the_files_lines(tmp_path: Path) -> None:
    text = "def deep():\n    raise ValueError(1)\n\nvalue = [\n    deep()\n    for _ in range(1)\n]\n"
    path = nix(tmp_path, text)
    script = locate(text, file=path, line=None, name="x")
    with pytest.raises(ValueError, match="1") as caught:
        exec(script.code(), {})
    frames = [
        frame for frame in traceback.extract_tb(caught.value.__traceback__) if frame.filename == str(path)
    ]
    assert frames[0].lineno in (7, 8)
    assert (frames[-1].lineno, frames[-1].line) == (5, "raise ValueError(1)")
    assert script.code().co_firstlineno == 4


def test_a_syntax_error_is_at_the_files_line(tmp_path: Path) -> None:
    text = "fine = 1\nif True\n"
    script = locate(text, file=nix(tmp_path, text), line=None, name="x")
    with pytest.raises(ConfigError, match=r"test\.nix:5: the testScript is no Python"):
        script.code()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("machine.screenshot('x')", [("screenshot()", 1)]),
        (
            "for m in machines:\n    m.send_key('ret')\n    m.wait_for_text('x')",
            [("send_key()", 2), ("wait_for_text()", 3)],
        ),
        ("machine.succeed('screenshot')\n# machine.screenshot()", []),
        ("def screenshot(): pass\nscreenshot()", []),
        ("class Camera:\n    def screenshot(self): pass\nCamera().screenshot()", []),
        ("machine.get_tty_text('1')\nmachine.wait_for_x()\nmachine.block()", []),
        (
            "m.succeed(\n    'true',\n    f'cd {x} && modprobe {y}',\n)\nm.wait_until_succeeds('sudo swapon /swap')",
            [("succeed('modprobe')", 3), ("wait_until_succeeds('swapon')", 5)],
        ),
        ("m.execute('systemctl kexec &')", [("execute('systemctl kexec')", 1)]),
        (
            "m.fail('modprobe x')\nm.execute('modprobe x')\nm.succeed('echo modprobe', 'losetup --list', 'modprobe x || true')",
            [],
        ),
    ],
)
def test_calls_that_need_a_virtual_machine(text: str, expected: list[tuple[str, int]]) -> None:
    calls = vm_only_calls(locate(text, file=None, line=None, name="x"))
    assert [(call.shown, call.line) for call in calls] == expected
    assert all(call.reason for call in calls)
