"""What can go wrong, as one tree of errors and one of failed assertions.

    NspawnError                     the harness, the machine or the test's set-up is at fault
    ├── ConfigError                 the user's input is wrong: raised before anything boots where that is possible
    │   └── NixError                a NixOS configuration does not evaluate, or its system does not build
    ├── HostError                   the machine lacks something; says the command that mends it
    ├── SandboxError                an operation in the sandbox failed, or the sandbox is gone
    └── MachineError                a fault about one node
        ├── BootError               the node did not boot, or not in time
        ├── NotRunningError         a command to a node that is not running
        └── UnsupportedError        only a virtual machine can do that
    AssertionError
    └── RequestedAssertionFailed    the assertion that the test asked for is false; raised `from None`
        ├── CommandFailed           a command ended with another exit code than asked for
        └── TimeoutExceeded         what the test waited for did not happen in time

Every error holds typed fields, builds its message from them, and survives pickling (pytest-xdist).
"""

from __future__ import annotations

import dataclasses
import pickle
import reprlib
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pytest_nspawn.model import CommandResult

__all__ = [
    "BootError",
    "CommandFailed",
    "ConfigError",
    "HostError",
    "MachineError",
    "NixError",
    "NotRunningError",
    "NspawnError",
    "RequestedAssertionFailed",
    "SandboxError",
    "TimeoutExceeded",
    "UnsupportedError",
]

OUTPUT_LIMIT = 8 * 1024
"""Characters of each output that a message holds: its tail."""

# What a node prints may hold escape sequences; a report shows them instead of obeying them.
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}

_HEADLINE = 160

_value_repr = reprlib.Repr()
_value_repr.maxstring = _value_repr.maxother = 200


class _Fields:
    """Pickling and repr by dataclass fields: an exception's own go by `args`, which these leave empty."""

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {
            each.name: _portable(getattr(self, each.name))
            for each in dataclasses.fields(self)  # type: ignore[arg-type]
            if each.init
        }
        others = {name: value for name, value in vars(self).items() if name not in fields}
        return _rebuild, (type(self), fields), others

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self).partition(chr(10))[0]!r})"


def _rebuild(kind: type[_Fields], fields: dict[str, Any]) -> _Fields:
    return kind(**fields)


def _portable(value: object) -> object:
    """The value, or what says it in words where it does not pickle: a user's lambda, somebody's exception."""
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 (our own, to see whether it would arrive)
    except (pickle.PickleError, TypeError, AttributeError, ValueError, LookupError, ImportError):
        return RuntimeError(repr(value)) if isinstance(value, BaseException) else repr(value)
    return value


@dataclass(kw_only=True, eq=False, repr=False)
class NspawnError(_Fields, Exception):
    """The root of all errors of pytest-nspawn but failed assertions."""


@dataclass(kw_only=True, eq=False, repr=False)
class ConfigError(NspawnError):
    """Raised when the user's input is wrong; `hint` is the way out, `test` is filled in by the plugin."""

    problem: str
    node: str | None = None
    value: object = None
    hint: str | None = None
    test: str | None = None

    def __str__(self) -> str:
        parts = [self.test] if self.test else []
        parts += [f"node {self.node!r}"] if self.node is not None else []
        parts += [self.problem]
        parts += [_value_repr.repr(self.value)] if self.value is not None else []
        return ": ".join(parts) + (f"; {self.hint}" if self.hint else "")


@dataclass(kw_only=True, eq=False, repr=False)
class NixError(ConfigError):
    """Raised when a configuration does not evaluate or build; `message` is Nix's own, `place` FILE:LINE:COLUMN."""

    message: str
    place: str | None = None

    def __str__(self) -> str:
        head = ": ".join(
            filter(None, (self.test, f"node {self.node!r}" if self.node else None, self.problem))
        )
        parts = [f"{head}:{_block(self.message)}"]
        parts += [f"at {self.place}"] if self.place else []
        parts += [self.hint] if self.hint else []
        return "\n".join(parts)


@dataclass(kw_only=True, eq=False, repr=False)
class HostError(NspawnError):
    """Raised when the machine lacks something; `mend` is the command that mends it, where there is one."""

    problem: str
    mend: str | None = None

    def __str__(self) -> str:
        return self.problem + (f"; mend it with: {self.mend}" if self.mend else "")


@dataclass(kw_only=True, eq=False, repr=False)
class SandboxError(NspawnError):
    """Raised when an operation in the sandbox fails, or when the sandbox is gone."""

    operation: str
    problem: str
    errno: int | None = None

    def __str__(self) -> str:
        return f"sandbox: {self.operation}: {self.problem}"


@dataclass(kw_only=True, eq=False, repr=False)
class MachineError(NspawnError):
    """Raised when the harness cannot do what it should do with a node."""

    node: str
    problem: str

    def __str__(self) -> str:
        return f"{self.node}: {self.problem}"


@dataclass(kw_only=True, eq=False, repr=False)
class BootError(MachineError):
    """Raised when a node does not boot, or is not ready in time; `console` is the tail of what it printed."""

    waiting_for: str | None = None
    console: str = ""
    seconds: float | None = None

    def __str__(self) -> str:
        head = f"{self.node}: {self.problem}"
        head += f" after {self.seconds:.2f} s" if self.seconds is not None else ""
        head += f"; it was waiting for: {self.waiting_for}" if self.waiting_for else ""
        return f"{head}\nconsole:{_block(self.console)}" if self.console else head


@dataclass(kw_only=True, eq=False, repr=False)
class NotRunningError(MachineError):
    """Raised when a command goes to a node that is not running."""

    problem: str = "the node is not running; start() boots it"


@dataclass(kw_only=True, eq=False, repr=False)
class UnsupportedError(MachineError):
    """Raised by what only a virtual machine can do."""

    problem: str = field(init=False)
    method: str
    reason: str
    way_out: str

    def __post_init__(self) -> None:
        self.problem = f"{self.method}() needs a virtual machine: {self.reason}; {self.way_out}"


@dataclass(kw_only=True, eq=False, repr=False)
class RequestedAssertionFailed(_Fields, AssertionError):  # noqa: N818 (the NixOS test driver's name)
    """Raised when what the test asked for is false; `from None`, so that a traceback ends in the test's line."""

    message: str
    node: str | None = None
    cause: BaseException | None = None

    def __str__(self) -> str:
        return f"{self.node}: {self.message}" if self.node is not None else self.message


@dataclass(kw_only=True, eq=False, repr=False)
class CommandFailed(RequestedAssertionFailed):
    """Raised when a command ends with another exit code than the test asked for."""

    message: str = field(init=False)
    result: CommandResult
    expected: Literal["exit code 0", "a non-zero exit code"] = "exit code 0"

    def __post_init__(self) -> None:
        self.node = self.node if self.node is not None else self.result.node
        text = self.result.command_line
        verdict = "failed" if self.expected == "exit code 0" else "unexpectedly succeeded"
        headline = f"command `{_first_line(text)}` {verdict} (exit code {self.result.exit_code}, expected {self.expected})"
        parts = [headline, f"duration: {self.result.duration:.3f} s"]
        parts += [f"command:{_block(text)}"] if _first_line(text) != text else []
        parts += [f"stdout:{_block(self.result.stdout)}", f"stderr:{_block(self.result.stderr)}"]
        self.message = "\n".join(parts)


@dataclass(kw_only=True, eq=False, repr=False)
class TimeoutExceeded(RequestedAssertionFailed):
    """Raised when what the test waited for did not happen in time; `elapsed` and `limit` are seconds."""

    message: str = field(init=False)
    what: str
    elapsed: float
    limit: float
    last: str | None = None

    def __post_init__(self) -> None:
        last = f"; last state: {self.last}" if self.last else ""
        self.message = (
            f"action timed out after {self.elapsed:.2f} s (limit {self.limit:g} s): {self.what}{last}"
        )


def _block(text: str) -> str:
    """A text as an indented block on lines of its own, cut to its tail."""
    if not text.strip():
        return " (empty)"
    cut = len(text) - OUTPUT_LIMIT
    note = f"[... {cut} characters before this are left out]\n" if cut > 0 else ""
    tail = text[-OUTPUT_LIMIT:].rstrip("\n").replace("\r\n", "\n").translate(_VISIBLE)
    return "\n" + textwrap.indent(note + tail, "  ", lambda _line: True)


def _first_line(text: str) -> str:
    """What stands for a command in a summary of one line."""
    line = text.partition("\n")[0].translate(_VISIBLE)
    return line if line == text and len(line) <= _HEADLINE else f"{line[:_HEADLINE]}..."
