"""A testScript as code whose lines are those of the .nix file it stands in."""

from __future__ import annotations

import ast
import linecache
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

from pytest_nspawn.errors import ConfigError

Compile = Callable[[ast.Module, str], CodeType]
"""From a tree and its file's name to code."""

_NAMED = re.compile(r"(?<![\w/.])\.{1,2}/[\w./+-]+\.(?:py|nix)\b")
"""A path to Python or Nix, as Nix has it."""

_UNESCAPED = (("''${", "${"), ("'''", "''"), ("''\\", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script's text, and where its lines stand: `lines[0]` is the line of `filename` that has its first line."""

    text: str
    filename: str
    lines: tuple[int, ...]

    @property
    def begin(self) -> int:
        """The file's line that has the script's first."""
        return self.lines[0] if self.lines else 1

    def at(self, line: int) -> int:
        """The file's line for one of the script's, which count from 1."""
        if not self.lines:
            return line
        return self.lines[min(max(line, 1), len(self.lines)) - 1]

    def tree(self) -> ast.Module:
        """Its syntax tree, whose lines are those of the file. Raises ConfigError where it is no Python."""
        return self._tree(0)

    def code(self, make: Compile | None = None) -> CodeType:
        """The script as code; `make` compiles its tree. Raises ConfigError where it is no Python."""
        before = self.begin - 1
        make = make or (lambda tree, filename: compile(tree, filename, "exec", dont_inherit=True))
        # Python lets every module begin at line 1, and a traceback would show all of the file from there. A code
        # object's lines are relative to its first (Objects/locations.md in CPython): so all are moved together.
        return _moved(make(self._tree(before), self.filename), before)

    def _tree(self, before: int) -> ast.Module:
        try:
            tree = ast.parse(self.text, self.filename)
        except SyntaxError as error:
            number = error.lineno or 1
            where = f"{self.filename}:{self.at(number)}"
            # Not the error's own text: that is of the .nix file.
            shown = "".join(self.text.splitlines()[number - 1 : number]).strip() or None
            raise ConfigError(
                problem=f"{where}: the testScript is no Python: {error.msg}", value=shown
            ) from None
        for node in ast.walk(tree):
            if isinstance(node, ast.stmt | ast.expr | ast.excepthandler | ast.arg | ast.keyword | ast.alias):
                end = node.end_lineno or node.lineno
                node.lineno = self.at(node.lineno) - before
                node.end_lineno = max(node.lineno, self.at(end) - before)
        return tree


def locate(text: str, *, file: Path | None, line: int | None, name: str) -> Script:
    """Find a script's lines in its file, or in one that this names (`readFile ./script.py`, `import ./common.nix`).

    Where they are in none as they are, the script is a file of its own.
    """
    for candidate, there in _candidates(file) if file is not None else ():
        found = _align(text.splitlines(), there.splitlines(), line if candidate == file else None)
        if found is not None:
            return Script(text=text, filename=str(candidate), lines=found)
    filename = f"<testScript of {name}>"
    # As doctest and IPython do: whoever shows a traceback finds the source here.
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    return Script(text=text, filename=filename, lines=tuple(range(1, len(text.splitlines()) + 1)))


def _candidates(file: Path) -> Iterator[tuple[Path, str]]:
    """A file and those that it names, with what is in them; each is read when the one before was of no use."""
    text = _read(file)
    yield file, text
    for name in dict.fromkeys(_NAMED.findall(text)):
        path = Path(os.path.normpath(file.parent / name))
        yield path, _read(path)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _align(script: Sequence[str], file: Sequence[str], line: int | None) -> tuple[int, ...] | None:
    """The line of the file for each of the script's; None where too few of them are there.

    Nix strips an indented string's margin, and puts values into it, which may have lines of their own.
    """
    wanted = [each.strip() for each in script]
    there = [_as_nix_gives(each) for each in file]
    if not any(wanted):
        return None
    best: tuple[int, int, tuple[int, ...]] = (0, 0, ())
    first = next(index for index, text in enumerate(wanted) if text)
    starts = [
        index for index, text in enumerate(there) if text == wanted[first] or _may_become(text, wanted[first])
    ]
    if line is not None:
        starts = sorted(starts, key=lambda index: abs(index - (line - 1 + first)))
    for start in starts[:50]:
        hits, lines = _follow(wanted, there, first, start)
        spread = lines[first] - lines[-1]  # of two that hold as much, the one that is less scattered
        if (hits, spread) > best[:2] or not best[2]:
            best = hits, spread, lines
    content = sum(1 for text in wanted if text)
    return best[2] if best[0] * 3 > content else None


def _follow(
    wanted: Sequence[str], there: Sequence[str], first: int, start: int
) -> tuple[int, tuple[int, ...]]:
    """Walk both side by side from one start; gives how many lines are the same, and where each stands."""
    lines = [start + 1 - (first - index) for index in range(first)]
    position, hits = start, 0
    for text in wanted[first:]:
        if position < len(there) and (there[position] == text or _may_become(there[position], text)):
            hits += bool(text)
            lines.append(position + 1)
            position += 1
            continue
        ahead = next(
            (index for index in range(position, min(position + 40, len(there))) if there[index] == text), None
        )
        if text and ahead is not None:
            hits += 1
            lines.append(ahead + 1)
            position = ahead + 1
        else:
            # A line of a value that was put in: it stands where that is.
            lines.append(min(position, len(there)) or 1)
    # Only ever onwards: a traceback's lines must not run backwards within a statement.
    return hits, tuple(max(lines[: index + 1]) for index in range(len(lines)))


def _as_nix_gives(line: str) -> str:
    line = line.strip()
    for escaped, plain in _UNESCAPED:
        line = line.replace(escaped, plain)
    return line


def _may_become(nix: str, text: str) -> bool:
    """Whether a line of Nix with values in it may have become a line of the script."""
    if "${" not in nix:
        return False
    head, _, rest = nix.partition("${")
    tail = rest.rpartition("}")[2]
    return bool(head or tail) and text.startswith(head) and text.endswith(tail)


def _moved(code: CodeType, lines: int) -> CodeType:
    """The same code, that many lines further down."""
    constants = tuple(_moved(each, lines) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_firstlineno=code.co_firstlineno + lines, co_consts=constants)
