"""What Nix says while it works: its messages as JSON lines (`--log-format internal-json`), as a status and as errors."""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

# Activity and result types of Nix's logging.hh.
_COPY_PATH, _FILE_TRANSFER, _BUILDS, _COPY_PATHS, _BUILD, _SUBSTITUTE = 100, 101, 104, 103, 105, 108
_PROGRESS, _LOG_LINE = 105, 101
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_LOG_LINES = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A place that an error's trace names."""

    text: str
    file: str | None
    line: int | None
    column: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """An error of Nix: its own message, without colours, and the trace, innermost first."""

    message: str
    frames: tuple[Frame, ...] = ()


@dataclass(slots=True)
class Log:
    """Everything that one call of Nix said so far."""

    complaints: list[Complaint] = field(default_factory=list)
    plain: deque[str] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    build_lines: dict[str, deque[str]] = field(default_factory=dict)
    _activities: dict[int, tuple[int, str]] = field(default_factory=dict)
    _builds: tuple[int, int] = (0, 0)

    def add(self, line: str) -> None:
        """Take one line of stderr."""
        if not line.startswith("@nix "):
            self.plain.append(strip(line.rstrip("\n")))
            return
        event: dict[str, Any] = json.loads(line[5:])
        action = event["action"]
        if action == "start":
            fields = event.get("fields") or [""]
            self._activities[event["id"]] = (event["type"], str(fields[0]))
        elif action == "stop":
            self._activities.pop(event["id"], None)
        elif action == "result":
            self._result(event)
        elif action == "msg" and event.get("level") == 0:
            complaint = _complaint(event)
            # Some warnings are as loud as errors.
            if complaint.message.startswith("warning:"):
                self.plain.append(complaint.message)
            else:
                self.complaints.append(complaint)

    def _result(self, event: dict[str, Any]) -> None:
        kind, name = self._activities.get(event["id"], (0, ""))
        if event["type"] == _LOG_LINE:
            lines = self.build_lines.setdefault(name, deque(maxlen=_LOG_LINES))
            lines.append(strip(str(event["fields"][0])))
        elif event["type"] == _PROGRESS and kind == _BUILDS:
            done, expected = event["fields"][:2]
            self._builds = (done, expected)

    def status(self) -> str:
        """What it does just now, in a few words."""
        verbs = {
            _BUILD: "building",
            _SUBSTITUTE: "fetching",
            _COPY_PATH: "copying",
            _FILE_TRANSFER: "downloading",
        }
        busy = [f"{verbs[kind]} {_short(name)}" for kind, name in self._activities.values() if kind in verbs]
        done, expected = self._builds
        left = f", {expected - done} of {expected} builds left" if expected > done else ""
        return (busy[-1] if busy else "evaluating") + left


def strip(text: str) -> str:
    """A text without the escape sequences of colours."""
    return _ESCAPES.sub("", text)


def _frame(entry: dict[str, Any], text: str) -> Frame:
    file, line, column = entry.get("file"), entry.get("line"), entry.get("column")
    if file is not None:
        file = file.removesuffix(f":{line}:{column}")  # newer versions say the place twice
    return Frame(text=strip(text), file=file, line=line, column=column)


def _complaint(event: dict[str, Any]) -> Complaint:
    own = _frame(event, "")
    frames = [_frame(each, each.get("raw_msg", "")) for each in event.get("trace", ())]
    text = strip(event.get("raw_msg") or event["msg"]).removeprefix("error:").strip()
    return Complaint(message=text, frames=(own, *frames))


def _short(name: str) -> str:
    """A store path without the directory and hash."""
    base = name.rsplit("/", 1)[-1].removesuffix(".drv")
    return re.sub(r"^[0-9a-z]{32}-", "", base)
