"""Evaluates a NixOS test without Nix: nodes as its first comment says, the script as its text has it.

The comment is JSON, `# {"nodes": {"server": {...}}, "vm_only": {...}}`; a node's fields are those of `Node`. An inner
conftest installs it: `from fake_nix import *`.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.model import Node, Topology
from pytest_nspawn.plugin.nix_tests import evaluate_key

__all__ = ["pytest_sessionstart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeNixTest:
    name: str
    topology: Topology
    script: str
    line: int | None = None
    file: Path | None = None
    vm_only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    host_names: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None


def evaluate(reference: str) -> FakeNixTest:
    if record := os.environ.get("FAKE_RECORD"):
        with Path(record).open("a") as file:
            file.write(f"evaluate {reference.rpartition('/')[2]}\n")
    place, _, attribute = reference.partition("#")
    path = Path(place) / "flake.nix" if attribute else Path(place)
    text = path.read_text()
    first = text.partition("\n")[0].removeprefix("#").strip()
    said: dict[str, Any] = json.loads(first) if first.startswith("{") else {}
    if "problem" in said:
        raise ConfigError(problem=said["problem"], value=path.name)
    found = re.search(r"testScript\s*=.*?''\n(?P<script>.*?)\n\s*'';", text, re.DOTALL)
    assert found is not None, text
    nodes = {name: Node(**node) for name, node in said.get("nodes", {"machine": {}}).items()}
    return FakeNixTest(
        name=attribute or path.stem,
        topology=Topology(nodes),
        script=textwrap.dedent(found["script"]) + "\n",
        file=path,
        vm_only=said.get("vm_only", {}),
        host_names=said.get("host_names", {}),
        timeout=said.get("timeout"),
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[evaluate_key] = evaluate
