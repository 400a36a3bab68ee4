"""An existing NixOS test: what its evaluation says of it, and what its nodes are built to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.model import Config, Node, Topology
from pytest_nspawn.nixbuild.facts import Facts, facts_of

_NODE_OF_TEST = Path(__file__).resolve().parent.parent / "nixos/node-of-test.nix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What can be known of a test before anything is built; `line` is where `testScript` stands in `file`.

    `vm_only` are options that need a virtual machine, by node; `host_names` are those that differ from the names of
    their nodes, and those.
    """

    name: str
    script: str
    nodes: Sequence[str]
    vm_only: Mapping[str, Sequence[str]]
    host_names: Mapping[str, str]
    file: Path | None = None
    line: int | None = None
    plain: bool = False
    """Whether a node is what stands under its name: nothing is said of all, and the script needs nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NixTest(Outline):
    """A test whose nodes are built; `timeout` is in seconds, `python_path` is where the script's modules are found."""

    topology: Topology
    facts: Mapping[str, Facts]
    timeout: float | None = None
    python_path: Sequence[str] = ()


def outline_of(entry: Any, reference: Config) -> Outline:
    """What evaluate.nix, or a manifest, says of a test that goes by a reference. Raises ConfigError."""
    path = str(reference).partition("#")[0]
    file = Path(path) if path.endswith(".nix") else None
    try:
        nodes = {name: each if isinstance(each, dict) else {} for name, each in entry["nodes"].items()}
        return Outline(
            name=entry["name"],
            script=entry["testScript"],
            nodes=tuple(sorted(nodes)),
            vm_only={name: tuple(each["vmOnly"]) for name, each in nodes.items() if each.get("vmOnly")},
            host_names={
                each["hostName"]: name
                for name, each in nodes.items()
                if each.get("hostName") not in (None, name)
            },
            file=Path(entry["file"]) if entry.get("file") else file,
            line=entry.get("line"),
            plain=entry.get("plain", False),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            problem="malformed test in a manifest",
            value=entry,
            hint='it has "name", "nodes" and "testScript"',
        ) from error


def data_of(reference: Config) -> dict[str, Any]:
    """A reference as our Nix code takes it: a file, one test of a file, or a flake's attribute."""
    place, _, attribute = str(reference).partition("#")
    if place.endswith(".nix"):
        return {"path": place, "attribute": attribute} if attribute else {"path": place}
    return {"flake": {"ref": place, "attribute": attribute}}


def node_of_test(reference: Config, node: str) -> str:
    """A node of a NixOS test as a config by itself; `reference` is the test's file, or DIR#checks.x86_64-linux.NAME.

    A relative path starts at the working directory.
    """
    place, separator, attribute = str(reference).partition("#")
    if ":" not in place:  # a flake's address
        place = os.path.abspath(place)
    data = data_of(f"{place}{separator}{attribute}")
    return (
        f"import (/. + {_quoted(str(_NODE_OF_TEST))}) "
        f"{{ reference = builtins.fromJSON {_quoted(json.dumps(data))}; node = {_quoted(node)}; }}"
    )


def _quoted(text: str) -> str:
    """A text as a string of Nix."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'


def test_of(entry: Any, reference: Config) -> NixTest:
    """The same with the nodes that are built, as a topology in the networks that they say. Raises ConfigError."""
    outline = outline_of(entry, reference)
    facts = {name: facts_of(name, each) for name, each in entry["nodes"].items()}
    nodes = {
        name: Node(
            known.system,
            # None where a manifest does not say: then it is in the first network, as any node.
            networks=None
            if known.interfaces is None
            else list(dict.fromkeys(each.network for each in known.interfaces)),
        )
        for name, known in facts.items()
    }
    return NixTest(
        **{field.name: getattr(outline, field.name) for field in fields(outline)},
        topology=Topology(nodes, name=outline.name),
        facts=facts,
        timeout=entry.get("timeout"),
        python_path=tuple(entry.get("pythonPath", ())),
    )
