"""Inner projects whose engine boots nothing."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest


class Project:
    """A pytest project in a directory of its own, and what its runs asked the engine for."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.record_file = pytester.path / "record.txt"

    def write(self, test: str, **files: str) -> Project:
        """The test file; others by their names without suffix."""
        head = (
            "import pytest\nimport unittest\n"
            "from pytest_nspawn import BootError, ConfigError, HostError, Network, Node, Topology\n"
        )
        conftest = "from fake_engine import *\nimport pytest\n" + files.pop("conftest", "")
        self.pytester.makeconftest(conftest)
        for name, text in {"test_it": test, **files}.items():
            path = self.pytester.path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head + text)
        return self

    def nix(self, name: str, script: str, *, said: Mapping[str, object] | None = None) -> Project:
        """A NixOS test whose evaluation is `fake_nix`; `said` is what that reads from its first comment."""
        indented = textwrap.indent(textwrap.dedent(script).strip("\n"), "    ")
        (self.pytester.path / name).write_text(
            f"# {json.dumps(said or {})}\n{{ ... }}:\n{{\n  nodes.machine = {{ }};\n  testScript = ''\n{indented}\n  '';\n}}\n"
        )
        self.pytester.makeconftest("from fake_engine import *\n")
        return self

    def run(self, *args: str, **outcomes: int) -> pytest.RunResult:
        """One run; `outcomes` as `assert_outcomes` takes them."""
        self.record_file.write_text("")
        run = self.pytester.runpytest_subprocess if "-n" in args else self.pytester.runpytest_inprocess
        result = run("-p", "no:cacheprovider", *args)
        if outcomes:
            result.assert_outcomes(**outcomes)
        return result

    @property
    def record(self) -> list[str]:
        """What the engine was asked for in the last run, but for the engine's own beginning and end."""
        return [line for line in self.everything if not line.startswith("engine")]

    @property
    def everything(self) -> list[str]:
        return self.record_file.read_text().splitlines()

    @property
    def boots(self) -> list[str]:
        return [line.removeprefix("boot ") for line in self.record if line.startswith("boot ")]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    here = str(Path(__file__).parent)
    pytester.syspathinsert(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]))
    made = Project(pytester)
    monkeypatch.setenv("FAKE_RECORD", str(made.record_file))
    pytester.makeini("[pytest]\nfilterwarnings = error\nstrict_markers = true\n")
    return made
