"""What can be told of a node after a failure: its last commands, console, journal and failed units, each bounded."""

from __future__ import annotations

from collections.abc import Callable

from pytest_nspawn.container import Container
from pytest_nspawn.errors import NspawnError
from pytest_nspawn.model import CommandResult
from pytest_nspawn.shell import Shell

_LINES = 200
_UNIT_LINES = 40
_OUTPUT = 4000
_LIMIT = 5.0
"""Seconds for each question."""


def diagnose(container: Container, history: list[CommandResult]) -> dict[str, str]:
    """The sections of a report, title to text. A question that fails has its error as the answer."""
    name = container.name
    sections = {
        f"{name}: commands": "\n".join(map(_command, history)),
        f"{name}: console": _answer(container.console.tail) if container.boots else "",
    }
    shell = container.agent()
    if container.frozen:
        sections[f"{name}: journal"] = "[the node is frozen: it tells nothing before thaw()]"
        return sections
    if shell is None:
        ended = f"[the node is not running; its journal is in what is kept of it]\nstatus: {container.status}"
        sections[f"{name}: journal"] = ended if container.boots else "[the node was never started]"
        return sections
    sections[f"{name}: journal"] = _answer(lambda: _journal(shell, "--lines", str(_LINES)))
    sections[f"{name}: failed units"] = _answer(lambda: _failed_units(shell))
    return sections


def _command(result: CommandResult) -> str:
    text = f"$ {result.command_line}\n[exit code {result.exit_code}, {result.duration:.3f} s]\n"
    for title, output in (("stdout", result.stdout), ("stderr", result.stderr)):
        if output:
            tail = output[-_OUTPUT:].rstrip("\n")
            text += f"{title}:\n{tail}\n"
    return text


def _answer(question: Callable[[], str]) -> str:
    try:
        return question()
    except (NspawnError, OSError) as error:
        return f"[could not be asked for: {error}]"


def _journal(shell: Shell, *arguments: str) -> str:
    result = shell.run(["journalctl", "--no-pager", "--output=short-precise", *arguments], timeout=_LIMIT)
    return result.stdout + result.stderr


def _failed_units(shell: Shell) -> str:
    listed = shell.run(
        ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"], timeout=_LIMIT
    )
    names = [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]
    parts = []
    for unit in names:
        status = shell.run(["systemctl", "status", "--no-pager", "--lines=0", unit], timeout=_LIMIT)
        parts.append(status.stdout + _journal(shell, "--unit", unit, "--lines", str(_UNIT_LINES)))
    return "\n".join(parts)
