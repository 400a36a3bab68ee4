"""Writes docs/options.md from the modules: `python -m tools.option_docs NIXPKGS`. A checkout's `lib` is all it reads."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_nspawn import process

HOME = Path(__file__).resolve().parents[1]
PAGE = HOME / "docs" / "options.md"
EXPRESSION = HOME / "pytest_nspawn" / "nixos" / "options.nix"

Option = Mapping[str, str | None]
Sides = Mapping[str, Sequence[Option]]

_INTRODUCTION = """\
# Options of the modules

Generated from the modules by `./dev docs`; [modules](modules.md) says how to use them.
"""
_HEADINGS = {"host": "## In the host's configuration", "container": "## In a container's configuration"}


def read_options(nixpkgs: Path) -> Sides:
    """All options, as the library of a nixpkgs tree tells them. Raises RuntimeError with Nix's own words."""
    result = process.run(
        [
            *("nix-instantiate", "--eval", "--strict", "--json"),
            *("--arg", "lib", f"import {nixpkgs / 'lib'}", str(EXPRESSION)),
        ]
    )
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip())
    sides: Sides = json.loads(result.stdout)
    return sides


def render(sides: Sides) -> str:
    """The page: a section a side, options in order of their names."""
    lines = [_INTRODUCTION]
    for side, heading in _HEADINGS.items():
        lines += [heading, ""]
        for option in sorted(sides[side], key=lambda option: str(option["name"])):
            lines += _section(option)
    return "\n".join(lines).rstrip() + "\n"


def _section(option: Option) -> Iterator[str]:
    yield f"### `{option['name']}`"
    yield ""
    yield str(option["description"]).strip()
    yield ""
    yield f"- Type: {option['type']}"
    yield from _value("Default", option["default"])
    yield from _value("Example", option["example"])
    yield ""


def _value(title: str, text: str | None) -> Iterator[str]:
    """A short value stands in its line, a long one in a block."""
    if text is None:
        yield f"- {title}: none"
    elif "\n" not in text.strip():
        yield f"- {title}: `{text.strip()}`"
    else:
        yield f"- {title}:"
        yield ""
        yield "  ```nix"
        yield from (f"  {line}".rstrip() for line in text.strip().splitlines())
        yield "  ```"


if __name__ == "__main__":
    PAGE.write_text(render(read_options(Path(sys.argv[1]).resolve())), encoding="utf-8")
