"""The documentation, held against what stands: tables, options, fields, links."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from pytest_nspawn.launch import LEFT_OUT
from pytest_nspawn.machine import Machine
from pytest_nspawn.model import Network, Node
from pytest_nspawn.plugin import hookspecs

HOME = Path(__file__).resolve().parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((HOME / "docs").glob("*.md"))}
LINK = re.compile(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)")


def named(word: str, text: str) -> bool:
    """Whether a word stands in code, as itself or at the beginning of an example."""
    return re.search(rf"`[^`\n]*(?<![\w-]){re.escape(word)}(?![\w-])[^`\n]*`", text) is not None


def rows(text: str) -> dict[str, str]:
    """The rows of tables with two columns, the first of them in code."""
    return dict(re.findall(r"^\| `([^`|]+)` \| ([^|]+?) \|$", text, re.MULTILINE))


def test_the_table_of_what_a_boot_leaves_out_is_the_codes() -> None:
    units = {unit: why for unit, why in rows(PAGES["boot.md"]).items() if "." in unit and " " not in unit}
    assert units == dict(LEFT_OUT)


def test_every_option_and_its_ini_twin_are_in_the_docs(pytestconfig: pytest.Config) -> None:
    parser = pytestconfig._parser
    options = [
        name
        for group in parser._groups
        if group.name == "nspawn"
        for option in group.options
        for name in option.names()
    ]
    twins = [name for name in parser._inidict if name.startswith("nspawn_")]
    assert options
    assert twins
    assert [each for each in options + twins if not named(each, PAGES["using.md"])] == []


def test_no_option_is_in_the_docs_that_is_not_there(pytestconfig: pytest.Config) -> None:
    group = next(group for group in pytestconfig._parser._groups if group.name == "nspawn")
    known = {name for option in group.options for name in option.names()}
    known |= {name for name in pytestconfig._parser._inidict if name.startswith("nspawn_")}
    pattern = re.compile(r"--nspawn-[a-z][a-z-]*|(?<![\w])nspawn_(?!tests)[a-z_]+(?= *=)")
    assert {f"{page}: {word}" for page, text in PAGES.items() for word in pattern.findall(text)} <= {
        f"{page}: {word}" for page in PAGES for word in known
    }


@pytest.mark.parametrize("kind", [Node, Network])
def test_every_field_of_a_value_is_in_the_docs(kind: type[Node | Network]) -> None:
    fields = [field.name for field in dataclasses.fields(kind) if field.init]
    assert [each for each in fields if not named(each, PAGES["images.md"] + PAGES["using.md"])] == []


def test_every_hook_is_in_the_docs() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("pytest_nspawn_")]
    assert [each for each in hooks if not named(each, PAGES["using.md"])] == []


def test_every_public_name_of_a_machine_is_in_the_docs() -> None:
    public = {name for name in dir(Machine) if not name.startswith("_")} | {"name", "tmp_dir", "out_dir"}
    assert sorted(each for each in public if not named(each, PAGES["machine.md"])) == []


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = HOME / "docs" / page
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    assert [each for each in targets if not (path.parent / each).exists()] == []


@pytest.mark.parametrize("example", sorted((HOME / "examples").glob("*.nix")), ids=lambda path: path.stem)
def test_the_page_of_the_modules_shows_every_example_as_it_is(example: Path) -> None:
    assert f"```nix\n{example.read_text(encoding='utf-8').strip()}\n```" in PAGES["modules.md"]
    tests = (HOME / "tests/nixos/test_modules.py").read_text(encoding="utf-8")
    assert re.search(rf'"{example.stem}(\.nix)?"', tests)
