"""Nix's errors as ours: the node, Nix's own message, and the place in the user's configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_nspawn.errors import NixError
from pytest_nspawn.model import config_kind
from pytest_nspawn.nixbuild import nix
from pytest_nspawn.nixbuild.progress import Complaint, Frame, Log
from pytest_nspawn.nixbuild.request import Request

_NODE = re.compile(r"while evaluating the node '([^']+)'")
_IN_FILE = re.compile(r"(?:^|\n)\s*- In `([^'`]+)'|in `([^'`]+)'")
_OPTION = re.compile(r"option (?:value )?`([^']+)'")
_BUILDER = re.compile(r"(?:builder for|build of|Cannot build) '(/nix/store/[^']+\.drv)'")
_HINTS = {
    "build-users-group": (
        "root builds as users of that group: make it (on Debian: apt-get install nix-setup-systemd), "
        "or say `build-users-group =` in /etc/nix/nix.conf"
    ),
    "requires lock file changes": "its flake.lock is missing or old: run `nix flake lock` there",
    "required for sandboxing": (
        "this machine has no namespaces for Nix's sandbox: say `sandbox = false` in /etc/nix/nix.conf"
    ),
}
"""What to do about messages of Nix that are about the machine, not about what is built."""

_NOISE = re.compile(r"\n*\(?use '--show-trace'.*|\n*For full logs, run.*", re.DOTALL)


def of_evaluation(log: Log, request: Request, texts: Path) -> NixError:
    """Why an evaluation failed; `texts` is where the Nix texts of nodes were written to."""
    complaint = _main(log)
    message = _NOISE.sub("", complaint.message).strip()
    place = _place(complaint, request, texts)
    node = _owner_of(place, request) or _node_of(complaint)
    hint = _hint(message)
    if str(texts) in message and "No such file" in message:
        hint = "a path in Nix text has to be absolute; a config that is a file may name others beside it"
    return NixError(
        problem=_what(request, node),
        node=node,
        message=_readable(message, request, texts),
        place=place,
        hint=hint,
    )


def of_build(log: Log, request: Request) -> NixError:
    """Why a build failed: the derivation, the node that needs it, and the end of its log."""
    complaint = _main(log)
    failed = [match[1] for each in log.complaints for match in [_BUILDER.search(each.message)] if match]
    derivation = failed[0] if failed else None
    node, lines = None, []
    if derivation is not None:
        node = _needed_by(derivation, request)
        lines = list(log.build_lines.get(derivation, ()))
    message = _NOISE.sub("", complaint.message).strip()
    if lines:
        first = message.partition("\n")[0].rstrip(";")
        message = "\n".join([first, "the end of its log:", *(f"  {line}" for line in lines)])
    return NixError(
        problem="its system does not build" if node else "a system does not build",
        node=node,
        message=message,
        place=None,
        hint=_hint(message) or (f"see: nix log {derivation}" if derivation is not None else None),
    )


def _hint(message: str) -> str | None:
    return next((hint for words, hint in _HINTS.items() if words in message), None)


def _what(request: Request, node: str | None) -> str:
    if request.test is not None:
        return (
            f"the NixOS test {request.test} does not evaluate"
            if node is None
            else "its configuration does not evaluate"
        )
    return "its configuration does not evaluate" if node else "the configurations do not evaluate"


def _main(log: Log) -> Complaint:
    """The complaint that says why: the first, of a derivation rather than of what needs it."""
    if log.complaints:
        return log.complaints[0]
    errors = [line.removeprefix("error:").strip() for line in log.plain if not line.startswith("warning:")]
    return Complaint(message="\n".join(errors or log.plain).strip() or "Nix said nothing")


def _node_of(complaint: Complaint) -> str | None:
    for text in (*(frame.text for frame in complaint.frames), complaint.message):
        if (match := _NODE.search(text)) is not None:
            return match[1]
    return None


def _owner_of(place: str | None, request: Request) -> str | None:
    """The node whose own config a place is in: a node may fail because it asks another."""
    file = (place or "").partition("\n")[0].partition(":")[0]
    owners = [
        name for name, node in request.nodes.items() if any(str(config) == file for config in node.configs)
    ]
    return owners[0] if len(owners) == 1 else None


def _place(complaint: Complaint, request: Request, texts: Path) -> str | None:
    """Where in the user's configuration: the innermost frame there, else what the module system names."""
    homes = [f"{texts}/"]
    configs = [config for node in request.nodes.values() for config in node.configs]
    configs += [request.test] if request.test is not None else []
    homes += [f"{Path(config).parent}/" for config in configs if config_kind(config) == "path"]
    frames = [frame for frame in complaint.frames if frame.file and frame.file.startswith("/")]
    for frame in frames:
        if str(frame.file).startswith(tuple(homes)):
            return _shown(frame, texts)
    named = _place_of_option(complaint.message, texts)
    if named is not None or request.nixpkgs.path is not None:
        return named
    foreign = (f"{Path(__file__).resolve().parent.parent}/",)
    return next((_shown(frame, texts) for frame in frames if not str(frame.file).startswith(foreign)), None)


def _place_of_option(message: str, texts: Path) -> str | None:
    """The module system names a file and an option, but no line: the first that has the option's last word."""
    option = _OPTION.search(message)
    for match in _IN_FILE.finditer(message):
        file = match[1] or match[2]
        if not file.startswith("/") or not Path(file).is_file():
            continue
        word = option[1].rpartition(".")[2].strip('"') if option is not None else None
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
        number = next((index for index, line in enumerate(lines, 1) if word and word in line), None)
        return _shown(Frame(text="", file=file, line=number, column=None), texts)
    return None


def _shown(frame: Frame, texts: Path) -> str:
    file = frame.file or ""
    name = f"its Nix text ({Path(file).name})" if file.startswith(str(texts)) else file
    shown = ":".join([name, *(str(number) for number in (frame.line, frame.column) if number is not None)])
    if frame.line is None or not Path(file).is_file():
        return shown
    lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    return f"{shown}\n  {lines[frame.line - 1].strip()}" if frame.line <= len(lines) else shown


def _readable(message: str, request: Request, texts: Path) -> str:
    """Nix's message, with the files of Nix texts called by the node that they are of."""
    for name in request.nodes:
        message = re.sub(
            rf"{re.escape(str(texts))}/{re.escape(name)}-(\d+)\.nix", rf"<Nix text \1 of {name}>", message
        )
    return message


def _needed_by(derivation: str, request: Request) -> str | None:
    """The node whose system needs a derivation: the first, where several do."""
    names: Sequence[str] = [Path(each).name.partition("-")[2] for each in nix.dependants(derivation)]
    hosts: Mapping[str, str] = {name.replace("_", "-"): name for name in request.nodes}
    for host, name in sorted(hosts.items()):
        if any(each.startswith(f"nixos-system-{host}-") for each in names):
            return name
    return None
