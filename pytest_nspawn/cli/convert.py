"""`python -m pytest_nspawn convert foo.nix`: write the pytest file that does what a NixOS test does, ready to be edited."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_nspawn import naming
from pytest_nspawn.cli import common
from pytest_nspawn.cli.nixtext import node_texts
from pytest_nspawn.cli.rewrite import Rewritten, rewrite
from pytest_nspawn.driver import judge
from pytest_nspawn.errors import ConfigError
from pytest_nspawn.nixbuild import Outline


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "convert", help="write the pytest file that does what a NixOS test does", description=__doc__
    )
    common.add_test(parser, boots=False)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the file to write, - for stdout (default: test_NAME.py beside the test)",
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    parser.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> int:
    reference = common.reference(options.test)
    with common.engine(options) as engine:
        test = engine.nix_outline(reference, directories=[common.directory_of(reference)])
        verdict = judge(test)
    if not verdict.can_run:
        print(verdict, file=sys.stderr)
    if "/nix/store/" in test.script:
        print(
            "the script names store paths; they are those of the nixpkgs that it was converted with",
            file=sys.stderr,
        )
    beside = common.directory_of(reference)
    output = Path(options.output or beside / f"test_{_word(test.name)}.py")
    text = converted(test, reference, output.parent if options.output != "-" else beside)
    if options.output == "-":
        print(text, end="")
        return 0
    if output.exists() and not options.force:
        raise ConfigError(
            problem="there is a file already", value=str(output), hint="say -o FILE, or --force"
        )
    output.write_text(text, encoding="utf-8")
    print(f"wrote {os.path.relpath(output)}")
    return 0


def converted(test: Outline, reference: Path | str, directory: Path) -> str:
    """The text of a pytest file that stands in `directory`. Raises ConfigError for a script that cannot be converted."""
    names = test.nodes
    rewritten = rewrite(test.script, names, test.host_names)
    configs = _configs(test, reference)
    imports_nodes = any(text.startswith("node_of_test(") for text in configs.values())
    parts = [
        f'"""{test.name}: what {_shown(reference)} tests, as a pytest file."""',
        "",
        *_imports(rewritten, imports_nodes=imports_nodes),
        "",
    ]
    if imports_nodes:
        place, separator, attribute = str(reference).partition("#")
        beside = f"Path(__file__).parent / {_quoted(os.path.relpath(place, directory))}"
        parts += [
            "# The nodes need other parts of it.",
            f"NIXOS_TEST = str({beside}) + {_quoted(separator + attribute)}"
            if attribute
            else f"NIXOS_TEST = {beside}",
            "",
        ]
    parts += ["", _mark(configs), f"def test_{_word(test.name)}({_arguments(rewritten, names)}) -> None:"]
    parts += [rewritten.body.rstrip() or "    pass"]
    return "\n".join(parts) + "\n"


def _configs(test: Outline, reference: Path | str) -> dict[str, str]:
    """What stands for each node in the mark, as Python: its own text, where that says it all."""
    readable = test.plain and isinstance(reference, Path)
    texts = node_texts(Path(reference).read_text(encoding="utf-8")) if readable else {}
    return {
        name: _nix_literal(texts[name])
        if "{" in texts.get(name, "")
        else f"node_of_test(NIXOS_TEST, {_quoted(name)})"
        for name in test.nodes
    }


def _nix_literal(text: str) -> str:
    """Nix text as a Python literal, its lines as far to the left as they go."""
    first, *rest = text.splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    lines = [first, *(line[margin:] for line in rest)]
    plain = "\n".join(lines)
    if '"""' in plain or plain.endswith('"'):
        return repr(plain)
    return f'r"""{plain}\n"""' if rest else f'r"""{plain}"""'


def _mark(configs: Mapping[str, str]) -> str:
    lines = [
        "@pytest.mark.nodes(",
        "    start=False,  # as in the NixOS driver: a node boots when it is started, or sent a command",
    ]
    dashed = {}
    for name, config in configs.items():
        if name.isidentifier() and name not in ("start", "scope"):
            lines.append(f"    {name}={config},")
        else:
            dashed[name] = config
    if dashed:
        lines.append("    **{")
        lines += [f"        {_quoted(name)}: {config}," for name, config in dashed.items()]
        lines.append("    },")
    return "\n".join([*lines, ")"])


def _arguments(rewritten: Rewritten, names: Sequence[str]) -> str:
    by_identifier = {naming.identifier(name): name for name in names}
    arguments = [f"{name}: Machine" for name in by_identifier if name in rewritten.used]
    if "machine" in rewritten.used and "machine" not in by_identifier:
        arguments.append("machine: Machine")
    if rewritten.needs_nodes or not arguments:
        arguments.append("nodes: Cluster")
    if "subtest" in rewritten.used:
        arguments.append("subtest: Subtest")
    return ", ".join(arguments)


def _imports(rewritten: Rewritten, *, imports_nodes: bool) -> list[str]:
    standard = sorted(rewritten.modules | ({"os"} if "os" in rewritten.used else set()))
    lines = [f"import {name}" for name in standard]
    lines += ["from pathlib import Path"] if imports_nodes else []
    lines += [""] if lines else []
    lines += ["import pytest", ""]
    public = {"Machine"} if "Machine" in rewritten.used or rewritten.nodes_used else set()
    public |= {"Cluster"} if rewritten.needs_nodes or not rewritten.nodes_used else set()
    lines += [f"from pytest_nspawn import {', '.join(sorted(public))}"]
    driver = ["Driver"] * rewritten.needs_driver + ["node_of_test"] * imports_nodes
    lines += [f"from pytest_nspawn.driver import {', '.join(driver)}"] if driver else []
    lines += ["from pytest_nspawn.plugin import Subtest"] if "subtest" in rewritten.used else []
    return lines


def _shown(reference: Path | str) -> str:
    return reference.name if isinstance(reference, Path) else reference.rpartition("#")[2]


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_") or "nixos"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
