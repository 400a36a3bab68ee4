"""`python -m pytest_nspawn interact foo.nix`: a Python prompt with a NixOS test's nodes and globals.

`start_all(); test_script()` runs the script; `NODE.shell_interact()` gives a shell, `NODE.console_interact()` the
console, `serial_stdout_on()` shows what all consoles print. Ctrl-D ends the nodes.
"""

from __future__ import annotations

import argparse
import code
import contextlib
import logging
import sys
from collections.abc import Mapping
from typing import Any

from pytest_nspawn import naming
from pytest_nspawn.cli import common
from pytest_nspawn.cluster import Cluster, Engine
from pytest_nspawn.driver import SLOW_JOB, Driver, Surroundings, judge, script_of
from pytest_nspawn.machine import Machine
from pytest_nspawn.model import Node, Topology


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "interact",
        help="a Python prompt with a NixOS test's nodes and globals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common.add_test(parser, boots=True)
    parser.set_defaults(run=_interact)


def _interact(options: argparse.Namespace) -> int:
    reference = common.reference(options.test)
    with common.engine(options) as engine, contextlib.ExitStack() as stack:
        test = engine.nix_test(reference, directories=[common.directory_of(reference)], interactive=True)
        verdict = judge(test)
        if not verdict.can_run:
            print(f"{verdict}\nwhat needs one will fail, the rest works", file=sys.stderr)
        nodes = stack.enter_context(engine.boot(test.topology, start=False, slow_job=SLOW_JOB))
        driver = Driver(
            nodes,
            script_of(test),
            aliases=test.host_names,
            python_path=test.python_path,
            surroundings=Surroundings(boot=lambda name, node: _boot(engine, stack, name, node)),
        )
        stack.callback(driver.close)
        _log_to_terminal()
        _prompt(driver.test_symbols(), nodes)
    return 0


def _boot(engine: Engine, stack: contextlib.ExitStack, name: str, node: Node) -> Machine:
    return stack.enter_context(engine.boot(Topology({name: node})))[name]


def _log_to_terminal() -> None:
    """What nodes and script log, on stderr: nothing else shows it here."""
    logger = logging.getLogger("pytest_nspawn")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _prompt(symbols: dict[str, Any], nodes: Cluster) -> None:
    # Only now: it sets a terminal up.
    with contextlib.suppress(ImportError):
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(symbols).complete)
        readline.parse_and_bind("tab: complete")
    names = ", ".join(naming.identifier(name) for name in nodes)
    banner = (
        f"Nodes: {names}. `start_all(); test_script()` runs the test, dir() lists all names, Ctrl-D ends."
    )
    code.InteractiveConsole(_without_dunder_main(symbols)).interact(banner=banner, exitmsg="")


def _without_dunder_main(symbols: Mapping[str, Any]) -> dict[str, Any]:
    return {**symbols, "__name__": "__console__", "__doc__": None}
