"""The documentation of the modules' options: what it is rendered to, and that none is missing on its page."""

from __future__ import annotations

import re
from pathlib import Path

from tools.option_docs import PAGE, render

MODULES = Path(__file__).resolve().parents[2] / "pytest_nspawn" / "nixos" / "modules"

OPTION = {
    "name": "nixos-nspawn.containers",
    "description": "Containers.\n",
    "type": "attribute set of submodule",
    "default": "{ }",
    "example": "{\n  web.config = { };\n}\n",
}


def sections() -> dict[str, str]:
    """The page's text by the name of the option."""
    parts = re.split(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_a_section_has_description_type_default_and_example() -> None:
    page = render({"host": [OPTION], "container": [{**OPTION, "default": None, "example": "true"}]})
    assert (
        page.count("### `nixos-nspawn.containers`\n\nContainers.\n\n- Type: attribute set of submodule\n")
        == 2
    )
    assert "- Default: `{ }`\n- Example:\n\n  ```nix\n  {\n    web.config = { };\n  }\n  ```\n" in page
    assert "- Default: none\n- Example: `true`\n" in page


def test_sections_are_in_order_of_their_names() -> None:
    names = ["nixos-nspawn.b", "nixos-nspawn.a"]
    page = render({"host": [{**OPTION, "name": name} for name in names], "container": []})
    assert page.index("`nixos-nspawn.a`") < page.index("`nixos-nspawn.b`")


def test_every_option_of_the_modules_is_on_the_page() -> None:
    declared = [
        name
        for path in MODULES.glob("*-options.nix")
        for name in re.findall(r"([\w-]+) = mkOption \{", path.read_text(encoding="utf-8"))
    ]
    assert sorted(declared) == sorted(name.rpartition(".")[2] for name in sections())


def test_every_option_has_a_description_a_type_a_default_and_an_example() -> None:
    for name, text in sections().items():
        description, _, values = text.strip().partition("\n\n- Type: ")
        assert len(description) > 20, name
        assert re.match(r"\S.*\n- Default: (`.+`|none)\n- Example:( `.+`|\n\n  ```nix\n)", values), name
