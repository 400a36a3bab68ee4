"""The source text of a NixOS test's nodes, where it can stand by itself.

Not a parser of Nix: it finds attributes by their brackets, and gives None for whatever it does not understand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_KEYWORDS = frozenset(["if", "then", "else", "let", "in", "with", "rec", "inherit", "assert", "or"])
_BUILT_IN = frozenset(
    [
        "true",
        "false",
        "null",
        "builtins",
        "toString",
        "map",
        "throw",
        "abort",
        "import",
        "removeAttrs",
        "baseNameOf",
        "dirOf",
        "isNull",
        "derivation",
    ]
)
_OPEN, _CLOSE = "([{", ")]}"

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|\#[^\n]*|/\*.*?\*/)
    | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<path>(?:\.\.?|~)?(?:/[\w.+-]+)+|<[\w./+-]+>)
    | (?P<name>[A-Za-z_][\w'-]*)
    | (?P<number>\d[\d.]*)
    | (?P<sign>\.\.\.|==|!=|<=|>=|&&|\|\||->|//|\+\+|\$\{|.)
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of Nix; of a string also the names that its antiquotations use."""

    kind: str
    text: str
    start: int
    end: int


def node_texts(source: str) -> dict[str, str]:
    """The text of each node that needs nothing else of its file, by name."""
    tokens = list(_tokens(source))
    found: dict[str, Sequence[Token]] = {}
    for path, start, end in _attributes(tokens, 0, len(tokens)):
        match path:
            case ["nodes" | "containers"]:
                inner = _set_body(tokens, start, end)
                if inner is not None:
                    for below, first, last in _attributes(tokens, *inner):
                        if len(below) == 1:
                            found[below[0]] = tokens[first:last]
            case ["nodes" | "containers", name]:
                found[name] = tokens[start:end]
            case ["machine"]:
                found["machine"] = tokens[start:end]
    return {
        name: source[value[0].start : value[-1].end]
        for name, value in found.items()
        if value and _stands_alone(value)
    }


def _tokens(source: str) -> Iterator[Token]:
    position = 0
    while position < len(source):
        if source.startswith("''", position):
            end = _end_of_indented(source, position + 2)
            yield Token("string", source[position:end], position, end)
            position = end
            continue
        match = _TOKEN.match(source, position)
        if match is None:
            return
        if match.lastgroup == "string":
            end = _end_of_string(source, position + 1)
            yield Token("string", source[position:end], position, end)
            position = end
            continue
        if match.lastgroup != "space":
            yield Token(match.lastgroup or "sign", match[0], match.start(), match.end())
        position = match.end()


def _end_of_string(source: str, position: int) -> int:
    while position < len(source) and source[position] != '"':
        if source[position] == "\\":
            position += 2
        elif source.startswith("${", position):
            position = _end_of_antiquotation(source, position + 2)
        else:
            position += 1
    return position + 1


def _end_of_indented(source: str, position: int) -> int:
    while position < len(source):
        if source.startswith(("''$", "'''"), position):
            position += 3
        elif source.startswith("''\\", position):
            position += 4
        elif source.startswith("''", position):
            return position + 2
        elif source.startswith("${", position):
            position = _end_of_antiquotation(source, position + 2)
        else:
            position += 1
    return position


def _end_of_antiquotation(source: str, position: int) -> int:
    depth = 1
    while position < len(source) and depth:
        if source[position] == '"':
            position = _end_of_string(source, position + 1)
            continue
        if source.startswith("''", position):
            position = _end_of_indented(source, position + 2)
            continue
        depth += {"{": 1, "}": -1}.get(source[position], 0)
        position += 1
    return position


def _attributes(tokens: Sequence[Token], start: int, end: int) -> Iterator[tuple[list[str], int, int]]:
    """Each `path = value;` at any depth that is not inside another's value; path, and where its value stands."""
    position = start
    while position < end:
        path, after = _path(tokens, position, end)
        if path and after < end and tokens[after].text == "=":
            stop = _until_semicolon(tokens, after + 1, end)
            yield path, after + 1, stop
            position = stop + 1
        else:
            position = max(position + 1, after if path else position + 1)


def _path(tokens: Sequence[Token], position: int, end: int) -> tuple[list[str], int]:
    path: list[str] = []
    while position < end:
        token = tokens[position]
        if token.kind == "string" and token.text.startswith('"') and "${" not in token.text:
            path.append(token.text[1:-1])
        elif token.kind == "name" and token.text not in _KEYWORDS:
            path.append(token.text)
        else:
            return [], position
        position += 1
        if position >= end or tokens[position].text != ".":
            return path, position
        position += 1
    return [], position


def _until_semicolon(tokens: Sequence[Token], position: int, end: int) -> int:
    depth = lets = 0
    while position < end:
        text = tokens[position].text if tokens[position].kind in ("sign", "name") else ""
        depth += (text in _OPEN or text == "${") if text else 0
        depth -= text in _CLOSE if text else 0
        if depth == 0:
            lets += {"let": 1, "in": -1}.get(text, 0)
            if text == ";" and not lets and not _is_prefix(tokens, position):
                return position
            if depth < 0:
                return position
        position += 1
    return position


def _is_prefix(tokens: Sequence[Token], semicolon: int) -> bool:
    """Whether a semicolon ends a `with ...` or an `assert ...`, after which the value goes on."""
    for token in reversed(tokens[:semicolon]):
        if token.text in ("with", "assert"):
            return True
        if token.text in ("=", ";", "{", "}", "in"):
            return False
    return False


def _set_body(tokens: Sequence[Token], start: int, end: int) -> tuple[int, int] | None:
    if end - start >= 2 and tokens[start].text == "{" and tokens[end - 1].text == "}":
        return start + 1, end - 1
    return None


def _stands_alone(tokens: Sequence[Token], outside: frozenset[str] = frozenset()) -> bool:
    """Whether every name is one of Nix's own, or bound in the text itself; where that is not sure, no."""
    bound = outside | _bound(tokens)
    for index, token in enumerate(tokens):
        before = tokens[index - 1].text if index else ""
        after = tokens[index + 1].text if index + 1 < len(tokens) else ""
        if token.kind == "path" or token.text == "with":
            return False
        if token.kind == "string":
            if not all(_stands_alone(list(_tokens(text)), bound) for text in _antiquotations(token.text)):
                return False
        elif token.kind == "name" and token.text not in _KEYWORDS | _BUILT_IN and before != ".":
            is_attribute = after == "=" or (after == "." and _names_attribute(tokens, index))
            if not is_attribute and token.text not in bound:
                return False
    return True


def _antiquotations(string: str) -> Iterator[str]:
    """What stands between `${` and `}` in a string."""
    escapes = ("''$", "'''") if string.startswith("''") else ("\\$", "\\\\")
    position = 2 if string.startswith("''") else 1
    while position < len(string):
        if string.startswith(escapes, position):
            position += len(escapes[0])
        elif string.startswith("${", position):
            end = _end_of_antiquotation(string, position + 2)
            yield string[position + 2 : end - 1]
            position = end
        else:
            position += 1


def _names_attribute(tokens: Sequence[Token], index: int) -> bool:
    path, after = _path(tokens, index, len(tokens))
    begins = index == 0 or tokens[index - 1].text in ("{", ";")
    return bool(path) and begins and after < len(tokens) and tokens[after].text == "="


def _bound(tokens: Sequence[Token]) -> frozenset[str]:
    """Names that functions of the text take, and that its `let`s bind."""
    bound: set[str] = set()
    lets = 0
    for index, token in enumerate(tokens):
        after = tokens[index + 1].text if index + 1 < len(tokens) else ""
        lets += {"let": 1, "in": -1}.get(token.text, 0)
        if token.kind == "name" and (after in (":", "@") or (lets and after == "=")):
            bound.add(token.text)
        if token.text == "}" and after in (":", "@"):
            opening = max(place for place in range(index) if tokens[place].text == "{")
            bound |= {each.text for each in tokens[opening:index] if each.kind == "name"}
    return frozenset(bound)
