"""An existing NixOS test, evaluated: its nodes, built, and its script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.model import Node, Topology
from pytest_nspawn.nixbuild.facts import Facts, facts_of


@dataclass(frozen=True, slots=True, kw_only=True)
class NixTest:
    """What Nix gives of a test; `line` is where `testScript` stands in `file`, `timeout` is in seconds."""

    name: str
    script: str
    facts: Mapping[str, Facts]
    file: Path | None = None
    line: int | None = None
    timeout: float | None = None

    @property
    def topology(self) -> Topology:
        """Its nodes, as built systems, in the networks that they say."""
        nodes = {
            name: Node(
                known.system,
                # None where a manifest does not say: then it is in the first network, as any node.
                networks=None
                if known.interfaces is None
                else list(dict.fromkeys(each.network for each in known.interfaces)),
            )
            for name, known in self.facts.items()
        }
        return Topology(nodes, name=self.name)

    @property
    def vm_only(self) -> Mapping[str, Sequence[str]]:
        """Options that need a virtual machine, by node."""
        return {name: known.vm_only for name, known in self.facts.items() if known.vm_only}

    @property
    def host_names(self) -> Mapping[str, str]:
        """Host names that differ from the names of their nodes, and those."""
        return {
            known.host_name: name for name, known in self.facts.items() if known.host_name not in (None, name)
        }


def test_of(entry: Any, *, file: Path | None) -> NixTest:
    """A test from what evaluate.nix gives, or from a manifest. Raises ConfigError."""
    try:
        return NixTest(
            name=entry["name"],
            script=entry["testScript"],
            facts={name: facts_of(name, each) for name, each in entry["nodes"].items()},
            file=Path(entry["file"]) if entry.get("file") else file,
            line=entry.get("line"),
            timeout=entry.get("timeout"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            problem="malformed test in a manifest",
            value=entry,
            hint='it has "name", "nodes" and "testScript"',
        ) from error
