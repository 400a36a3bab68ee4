"""The command line: what this machine lacks, a shell on a node, and what there is to do with existing NixOS tests."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from pytest_nspawn import host
from pytest_nspawn.cli import convert, explain, interact, shell
from pytest_nspawn.errors import NspawnError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pytest_nspawn", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="say what this machine lacks, with the command that mends it")
    doctor.add_argument(
        "--sandbox", choices=("auto", "root", "user"), default="auto", help="as pytest's --nspawn-sandbox"
    )
    doctor.set_defaults(run=_doctor)
    for command in (shell, explain, convert, interact):
        command.add(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except NspawnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _doctor(options: argparse.Namespace) -> int:
    machine = host.Host()
    user = machine.user_name(machine.tree.user)
    version = importlib.metadata.version("pytest-nspawn")
    print(f"pytest-nspawn {version}, Linux {os.uname().release}, user {user}")
    mode = host.resolve_mode(options.sandbox, machine)
    other: host.Mode = "user" if mode == "root" else "root"

    print(
        f"\nSandbox `{mode}`" + (", the one that `auto` chooses here:" if options.sandbox == "auto" else ":")
    )
    checks = host.checks(mode, machine)
    _print_checks(checks)

    print(f"\nSandbox `{other}` (--nspawn-sandbox={other}):")
    seen = set(checks)
    lacking = [check for check in host.checks(other, machine) if not check.ok]
    _print_checks([check for check in lacking if check not in seen])
    if not any(check.required for check in lacking):
        print("  could be used, too")
    elif seen.issuperset(lacking):
        print("  lacks the same")

    broken = [check for check in checks if check.required and not check.ok]
    if broken:
        print(f"\nNodes can't run here: {', '.join(check.name for check in broken)}.")
        return 1
    lost = [check.name for check in checks if not check.ok]
    print("\nNodes can run here" + (f", but without: {', '.join(lost)}." if lost else "."))
    return 0


def _print_checks(checks: Sequence[host.Check]) -> None:
    for check in checks:
        word = "ok" if check.ok else "missing" if check.required else "without"
        print(f"  {word:<8} {check.name:<16} {check.found if check.ok else check.problem}")
        if not check.ok and check.mend:
            print(f"  {'':<8} {'':<16} mend it with: {check.mend}")


if __name__ == "__main__":
    sys.exit(main())
