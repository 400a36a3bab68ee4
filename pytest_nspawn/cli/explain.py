"""`python -m pytest_nspawn explain foo.nix`: can a NixOS test run as containers, and what says that it cannot."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pytest_nspawn.cli import common
from pytest_nspawn.driver import judge
from pytest_nspawn.errors import ConfigError


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "explain",
        help="say whether NixOS tests can run as containers, with all that says no; builds nothing",
        description=f"{__doc__} Nothing is built. The exit status is 1 where one cannot.",
    )
    parser.add_argument("tests", metavar="FILE", nargs="+", help=common.TEST_HELP)
    common.add_options(parser, boots=False)
    parser.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> int:
    able, unable, wrong = 0, 0, 0
    with common.engine(options) as engine:
        for text in options.tests:
            try:
                reference = common.reference(text)
                test = engine.nix_outline(reference, directories=[common.directory_of(reference)])
                verdict = judge(test)
            except ConfigError as error:
                if len(options.tests) == 1:
                    raise
                print(f"error: {error}", file=sys.stderr)
                wrong += 1
                continue
            print(verdict)
            able, unable = able + verdict.can_run, unable + (not verdict.can_run)
    if len(options.tests) > 1:
        parts = [f"{able} can run as containers", f"{unable} need a virtual machine"]
        print(", ".join([*parts, f"{wrong} could not be read"] if wrong else parts))
    return 0 if able == len(options.tests) else 1
