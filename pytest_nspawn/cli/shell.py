"""`python -m pytest_nspawn shell CONFIG`: boot one node and give a shell on it; leaving the shell ends the node."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pytest_nspawn.cli import common
from pytest_nspawn.errors import ConfigError
from pytest_nspawn.model import Node, Topology


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("shell", help="boot one node and give a shell on it", description=__doc__)
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="a NixOS module (file or Nix text), a store path, a name of the manifest (default: a node without one)",
    )
    parser.add_argument("--image", default="host", help="image of a node without a config (default: host)")
    parser.add_argument("--name", default="machine", help="the node's name (default: machine)")
    common.add_options(parser, boots=True)
    parser.set_defaults(run=_shell)


def _shell(options: argparse.Namespace) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(problem="a shell needs a terminal", hint="run this in one, without pipes")
    topology = Topology({options.name: Node(options.config)})
    with (
        common.engine(options, image=options.image) as engine,
        engine.boot(topology, directories=[Path.cwd()]) as nodes,
    ):
        nodes[options.name].shell_interact()
    return 0
