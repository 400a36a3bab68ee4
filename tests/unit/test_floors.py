"""The house's plan (docs/architecture.md), proved from the source: who may import whom."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "pytest_nspawn"
HOME = Path(__file__).resolve().parents[2] / PACKAGE

# Lowest first. A room is a module or a package of this package.
FLOORS = (
    ("errors", "frozen", "checks", "model", "naming", "timing", "wire", "plan"),
    ("networkd", "process", "network", "cgroups", "host"),
    ("inside", "sandbox", "nixbuild", "images", "imperative"),
    ("shell", "bus", "console", "launch", "capture", "container"),
    ("diagnostics", "machine"),
    ("cluster", "driver"),
    ("plugin", "cli", "__main__"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Rooms on one floor that may import each other, in this direction.
PEERS = {
    ("frozen", "errors"),
    ("checks", "errors"),
    ("checks", "frozen"),
    ("checks", "naming"),
    ("model", "checks"),
    ("model", "errors"),
    ("model", "frozen"),
    ("naming", "errors"),
    ("naming", "frozen"),
    ("timing", "errors"),
    ("host", "cgroups"),
    ("host", "process"),
    ("images", "nixbuild"),
    ("container", "bus"),
    ("container", "console"),
    ("container", "shell"),
    ("__main__", "cli"),
}

# Inside the sandbox everything is imported before a namespace is entered: so little, and no more.
INSIDE_MAY = {"errors", "wire", "plan", "network", "inside"}

ONLY_IMPORTERS = {
    "subprocess": "process",
    "pyroute2": "network",
    "jeepney": "bus",
    "pexpect": "console",
    "pytest": "plugin",
    "_pytest": "plugin",
    "pluggy": "plugin",
    "xdist": "plugin",
}


@dataclass(frozen=True)
class Import:
    room: str
    target: str
    where: str
    only_types: bool


def _imports() -> Iterator[Import]:
    for path in sorted(HOME.rglob("*.py")):
        parts = path.relative_to(HOME).with_suffix("").parts
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing_only = {
            id(child)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for statement in node.body
            for child in ast.walk(statement)
        }
        for node in ast.walk(tree):
            for target in _targets(node, parts):
                where = f"{path.relative_to(HOME.parent)}:{getattr(node, 'lineno', 0)}"
                yield Import(parts[0], target, where, id(node) in typing_only)


def _targets(node: ast.AST, parts: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = ".".join([PACKAGE, *parts[: len(parts) - node.level]]) if node.level else ""
        module = ".".join(filter(None, (base, node.module)))
        if module == PACKAGE:
            yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
        else:
            yield module


IMPORTS = list(_imports())


def _rooms() -> list[Import]:
    """Imports of the package's own rooms; the target is the room's name."""
    own = [each for each in IMPORTS if each.target.startswith(f"{PACKAGE}.")]
    return [Import(each.room, each.target.split(".")[1], each.where, each.only_types) for each in own]


def test_every_room_has_a_floor() -> None:
    rooms = {each.relative_to(HOME).with_suffix("").parts[0] for each in HOME.rglob("*.py")}
    assert rooms - {"__init__"} <= set(FLOOR)


def test_a_room_imports_only_from_floors_below_and_from_named_peers() -> None:
    wrong = [
        f"{each.where}: {each.room} imports {each.target}"
        for each in _rooms()
        if each.room not in ("__init__", each.target)
        and not (each.target in FLOOR and FLOOR[each.target] < FLOOR[each.room])
        and (each.room, each.target) not in PEERS
        # A peer's type may be named where its code may not be called.
        and not (each.only_types and FLOOR.get(each.target) == FLOOR[each.room])
    ]
    # What the package itself offers is its public face, not a room.
    assert not wrong, "\n".join(wrong)


def test_the_package_itself_is_lazy() -> None:
    eager = [each.where for each in IMPORTS if each.room == "__init__" and each.target.startswith(PACKAGE)]
    tree = ast.parse((HOME / "__init__.py").read_text(encoding="utf-8"))
    top = {statement.lineno for statement in tree.body}
    assert not [where for where in eager if int(where.rpartition(":")[2]) in top]


def test_what_runs_in_the_sandbox_imports_only_the_standard_library_and_what_it_must() -> None:
    wrong = []
    for each in IMPORTS:
        if each.room != "inside":
            continue
        top, _, rest = each.target.partition(".")
        if not (rest.split(".")[0] in INSIDE_MAY if top == PACKAGE else top in sys.stdlib_module_names):
            wrong.append(f"{each.where}: {each.target}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(ONLY_IMPORTERS))
def test_a_library_has_one_importer(library: str) -> None:
    importers = {each.room for each in IMPORTS if each.target.split(".")[0] == library}
    assert importers <= {ONLY_IMPORTERS[library]}


def test_the_plugin_starts_light() -> None:
    for module in (PACKAGE, f"{PACKAGE}.plugin"):
        program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
        said = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        ).stdout
        heavy = {"pyroute2", "jeepney", "pexpect"} | ({"pytest"} if module == PACKAGE else set())
        assert not heavy & set(json.loads(said)), f"import {module}"
