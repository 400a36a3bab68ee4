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

_IMPORT = '''\
def from_test(node: str) -> str:
    """A node of the NixOS test as Nix text of its own: its configuration needs other parts of that file."""
    return """
        { lib, pkgs, ... }:
        let
          file = import NIX_FILE;
          asked = builtins.functionArgs file;
          given = { inherit lib pkgs; };
          test =
            if !builtins.isFunction file then file
            else file (if asked == { } then given else builtins.intersectAttrs asked given);
          old = if test ? machine then { inherit (test) machine; } else { };
          all = old // (test.nodes or { }) // (test.containers or { });
        in
        { imports = [ all."NODE" ]; }
    """.replace("NIX_FILE", str(NIX_FILE)).replace("NODE", node)
'''


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "convert", help="write the pytest file that does what a NixOS test does", description=__doc__
    )
    common.add_test(parser)
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
        where = [common.directory_of(reference)]
        test: Outline
        # A flake's check has its nodes built in: the systems themselves stand in the file.
        if isinstance(reference, Path):
            test, systems = engine.nix_outline(reference, directories=where), {}
        else:
            test = built = engine.nix_test(reference, directories=where)
            systems = {name: known.system for name, known in built.facts.items()}
        verdict = judge(test)
    if not verdict.can_run:
        print(verdict, file=sys.stderr)
    beside = common.directory_of(reference)
    output = Path(options.output or beside / f"test_{_word(test.name)}.py")
    text = converted(test, systems, reference, output.parent if options.output != "-" else beside)
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


def converted(test: Outline, systems: Mapping[str, str], reference: Path | str, directory: Path) -> str:
    """The text of a pytest file that stands in `directory`; `systems` are those of a flake's check, by node.

    Raises ConfigError for a script that cannot be converted.
    """
    names = test.nodes
    rewritten = rewrite(test.script, names, test.host_names)
    configs = _configs(test, systems, reference)
    parts = [
        f'"""{test.name}: what {_shown(reference)} tests, as a pytest file."""',
        "",
        *_imports(rewritten, uses_file=any("from_test" in text for text in configs.values())),
        "",
    ]
    if any("from_test" in text for text in configs.values()):
        assert isinstance(reference, Path)  # a flake's nodes are never imported from a file
        parts += [
            f"NIX_FILE = Path(__file__).parent / {_quoted(os.path.relpath(reference, directory))}",
            "",
            "",
        ]
        parts += [_IMPORT.rstrip(), ""]
    parts += ["", _mark(configs), f"def test_{_word(test.name)}({_arguments(rewritten, names)}) -> None:"]
    parts += [rewritten.body.rstrip() or "    pass"]
    return "\n".join(parts) + "\n"


def _configs(test: Outline, systems: Mapping[str, str], reference: Path | str) -> dict[str, str]:
    """What stands for each node in the mark, as Python."""
    if not isinstance(reference, Path):
        return {name: _quoted(system) for name, system in systems.items()}
    texts = node_texts(reference.read_text(encoding="utf-8"))
    return {
        name: _nix_literal(texts[name]) if "{" in texts.get(name, "") else f"from_test({_quoted(name)})"
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


def _imports(rewritten: Rewritten, *, uses_file: bool) -> list[str]:
    standard = sorted(rewritten.modules | ({"os"} if "os" in rewritten.used else set()))
    lines = [f"import {name}" for name in standard]
    lines += ["from pathlib import Path"] if uses_file else []
    lines += [""] if lines else []
    lines += ["import pytest", ""]
    public = {"Machine"} if "Machine" in rewritten.used or rewritten.nodes_used else set()
    public |= {"Cluster"} if rewritten.needs_nodes or not rewritten.nodes_used else set()
    lines += [f"from pytest_nspawn import {', '.join(sorted(public))}"]
    lines += ["from pytest_nspawn.driver import Driver"] if rewritten.needs_driver else []
    lines += ["from pytest_nspawn.plugin import Subtest"] if "subtest" in rewritten.used else []
    return lines


def _shown(reference: Path | str) -> str:
    return reference.name if isinstance(reference, Path) else reference.rpartition("#")[2]


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_") or "nixos"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
