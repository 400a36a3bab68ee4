"""A testScript as the body of a test function: the driver's globals become what a pytest test has in their place."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_nspawn import naming
from pytest_nspawn.errors import ConfigError

_EXPRESSIONS = {
    "start_all": "nodes.start_all",
    "join_all": "nodes.join_all",
    "machines": "nodes.machines",
    "machines_nspawn": "nodes.machines",
    "machines_qemu": "[]",
    "BaseMachine": "Machine",
}
"""Globals that one expression stands for."""

_DRIVER = (
    "retry",
    "polling_condition",
    "create_machine",
    "serial_stdout_on",
    "serial_stdout_off",
    "log",
    "vlans",
    "run_tests",
    "test_script",
)
"""Globals that only the driver has."""

_MARGIN = "    "


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A function's body, and what it needs around it."""

    body: str
    used: frozenset[str]
    """Globals of a testScript that it uses, nodes among them."""
    nodes_used: bool
    needs_nodes: bool
    needs_driver: bool
    modules: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Edit:
    line: int
    column: int
    length: int
    text: str


def rewrite(script: str, nodes: Sequence[str], host_names: Mapping[str, str]) -> Rewritten:
    """Turn a script into the body of a test. Raises ConfigError where a function cannot hold it."""
    try:
        tree = ast.parse(script)
    except SyntaxError as error:
        problem = f"the testScript is no Python (line {error.lineno}): {error.msg}"
        raise ConfigError(problem=problem, value=(error.text or "").strip() or None) from None
    _refuse(tree)
    assigned = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del)
    } | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in assigned
    ]
    used = frozenset(node.id for node in names)
    driver = [name for name in _DRIVER if name in used]
    vlans = sorted(name for name in used if name.startswith("vlan") and name[4:].isdigit())
    needs_driver = bool(driver or vlans or "driver" in used)
    lines = script.encode().splitlines()
    expressions, elsewhere = _expressions(names, lines)
    prologue = _prologue(used, driver, vlans, host_names)
    prologue += [f"{name} = {_EXPRESSIONS[name]}" for name in elsewhere]
    edits = [*expressions, *_breakpoints(tree), *_nonlocals(tree, lines)]
    body = _indented(script, edits)
    identifiers = {naming.identifier(name) for name in nodes} | {"machine"}
    return Rewritten(
        body="\n".join([*(f"{_MARGIN}{line}" for line in prologue), body]).strip("\n"),
        used=used
        | {naming.identifier(host_names[name]) for name in host_names if naming.identifier(name) in used},
        nodes_used=bool(used & identifiers) or any(naming.identifier(name) in used for name in host_names),
        needs_nodes=needs_driver
        or any(text.startswith("nodes.") and name in used for name, text in _EXPRESSIONS.items()),
        needs_driver=needs_driver,
        modules=frozenset({"unittest"} if "t" in used else ()),
    )


def _refuse(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            problem = f"line {node.lineno} of the testScript imports *, which no function can"
            raise ConfigError(problem=problem, hint="name what it needs")


def _prologue(
    used: Iterable[str], driver: Sequence[str], vlans: Sequence[str], host_names: Mapping[str, str]
) -> list[str]:
    lines = []
    if driver or vlans or "driver" in used:
        lines.append("driver = Driver(nodes)")
        lines += [f"{name} = driver.{name}" for name in driver]
        lines += [f"{name} = next(vlan for vlan in driver.vlans if vlan.nr == {name[4:]})" for name in vlans]
    if "t" in used:
        lines.append("t = unittest.TestCase()")
    for alias, name in host_names.items():
        if naming.identifier(alias) in used:
            lines.append(f"{naming.identifier(alias)} = {naming.identifier(name)}")
    return lines


def _expressions(names: Iterable[ast.Name], lines: Sequence[bytes]) -> tuple[list[_Edit], list[str]]:
    """Where globals stand, as edits; those that Python tells no good place of (in an f-string, before 3.12), by name."""
    edits, elsewhere = [], set()
    for node in names:
        if node.id in _EXPRESSIONS:
            if lines[node.lineno - 1].startswith(node.id.encode(), node.col_offset):
                edits.append(
                    _Edit(node.lineno, node.col_offset, len(node.id.encode()), _EXPRESSIONS[node.id])
                )
            else:
                elsewhere.add(node.id)
    return edits, sorted(elsewhere)


def _breakpoints(tree: ast.Module) -> list[_Edit]:
    """`debug.breakpoint` is pytest's own `breakpoint`."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(
                value=ast.Name(id="debug"), attr="breakpoint", lineno=line, end_lineno=end
            ) if line == end:
                found.append(
                    _Edit(line, node.col_offset, (node.end_col_offset or 0) - node.col_offset, "breakpoint")
                )
    return found


def _nonlocals(tree: ast.Module, lines: Sequence[bytes]) -> list[_Edit]:
    """What is global to the script is local to the test."""
    return [
        _Edit(node.lineno, node.col_offset, len("global"), "nonlocal")
        for node in ast.walk(tree)
        if isinstance(node, ast.Global) and lines[node.lineno - 1].startswith(b"global ", node.col_offset)
    ]


def _indented(script: str, edits: Sequence[_Edit]) -> str:
    """The script, edited and moved to the right, but for what is inside strings of several lines."""
    lines = [line.encode() for line in script.splitlines()]
    for edit in sorted(edits, key=lambda each: (each.line, each.column), reverse=True):
        line = lines[edit.line - 1]
        lines[edit.line - 1] = line[: edit.column] + edit.text.encode() + line[edit.column + edit.length :]
    inside = _inside_strings(script)
    moved: list[str] = []
    for number, text in enumerate((line.decode() for line in lines), 1):
        if number in inside:
            moved.append(text)
        elif text.strip():
            moved.append(f"{_MARGIN}{text}")
        elif not moved or moved[-1]:
            moved.append("")  # one blank line is enough in a function
    return "\n".join(moved)


def _inside_strings(script: str) -> set[int]:
    """The lines that begin inside a string: a margin would become part of it."""
    inside: set[int] = set()
    begins: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(script).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "STRING":
            inside.update(range(token.start[0] + 1, token.end[0] + 1))
        elif kind.endswith("STRING_START"):  # of an f-string, since Python 3.12
            begins.append(token.start[0])
        elif kind.endswith("STRING_END"):
            inside.update(range(begins.pop() + 1, token.end[0] + 1))
    return inside
