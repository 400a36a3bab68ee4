"""Whether a NixOS test can run as containers, and what says that it cannot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_nspawn.driver.script import Script, locate, vm_only_calls
from pytest_nspawn.nixbuild import Outline


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that keeps a test from running as containers; nothing: it can."""

    test: str
    nodes: Sequence[str]
    obstacles: Sequence[str]

    @property
    def can_run(self) -> bool:
        """Whether it can."""
        return not self.obstacles

    @property
    def reason(self) -> str:
        """Why it cannot, on one line."""
        return f"{self.test} needs a virtual machine: {'; '.join(self.obstacles)}"

    def __str__(self) -> str:
        if self.can_run:
            return f"{self.test}: runs as containers ({', '.join(self.nodes)})"
        return "\n".join(
            [f"{self.test}: needs a virtual machine:", *(f"  - {each}" for each in self.obstacles)]
        )


def script_of(test: Outline) -> Script:
    """A test's script, at its lines in the .nix file where those can be found."""
    return locate(test.script, file=test.file, line=test.line, name=test.name)


def judge(test: Outline) -> Verdict:
    """Say whether a test can run as containers, before anything is built. Raises ConfigError where its script is no Python."""
    script = script_of(test)
    options = [f"node {name}: {option}" for name, found in sorted(test.vm_only.items()) for option in found]
    place = os.path.basename(script.filename)
    calls = [f"{place}:{call.line}: {call.method}() ({call.reason})" for call in vm_only_calls(script)]
    return Verdict(test=test.name, nodes=test.nodes, obstacles=(*options, *calls))
