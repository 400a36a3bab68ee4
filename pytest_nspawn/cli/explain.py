"""`python -m pytest_nspawn explain foo.nix`: can a NixOS test run as containers, and what says that it cannot."""

from __future__ import annotations

import argparse
from typing import Any

from pytest_nspawn.cli import common
from pytest_nspawn.driver import judge


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "explain",
        help="say whether a NixOS test can run as containers, with each option and method that says no",
        description=__doc__,
    )
    common.add_test(parser)
    parser.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> int:
    reference = common.reference(options.test)
    with common.engine(options) as engine:
        test = engine.nix_outline(reference, directories=[common.directory_of(reference)])
        verdict = judge(test)
    print(verdict)
    return 0 if verdict.can_run else 1
