"""What all verbs of a machine share: its node, its log, its limits, the record of its commands."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from pytest_nspawn import timing
from pytest_nspawn.errors import NotRunningError, RequestedAssertionFailed, TimeoutExceeded
from pytest_nspawn.machine.channels import BusChannel, ContainerChannel, ShellChannel
from pytest_nspawn.model import CommandResult
from pytest_nspawn.timing import Deadline, Seconds

T = TypeVar("T")

HISTORY = 50
"""Commands that are remembered for a report."""

OUTPUT_TAIL = 8 * 1024
"""Characters of each output of a command that are remembered: the last ones."""

WATCHED = 0.25
"""Seconds between two looks at the callbacks during a wait that only an event ends."""

_MOMENT = 0.005
"""Seconds before a node that could not be asked is asked again: its end is told soon after it is seen."""

_LOGGER = logging.getLogger("pytest_nspawn.machine")


def hidden(excinfo: Any) -> bool:
    """For `__tracebackhide__` of a module: a failed assertion is about the test's line, a fault about ours."""
    return excinfo is not None and isinstance(excinfo.value, RequestedAssertionFailed)


__tracebackhide__ = hidden


class _DefaultLimit(int):
    """A limit that the test did not choose: --nspawn-timeout-factor stretches it."""

    __slots__ = ()


LIMIT = _DefaultLimit(900)
"""The NixOS driver's limit for all that waits, in seconds."""


def seconds_of(timeout: Seconds | None) -> float | None:
    """A limit in seconds; None is none."""
    if timeout is None:
        return None
    return timing.default(timeout) if isinstance(timeout, _DefaultLimit) else timing.seconds(timeout)


class _NodeLog(logging.LoggerAdapter[logging.Logger]):
    """Says which node a record is about."""

    def __init__(self, node: str) -> None:
        super().__init__(_LOGGER, {"node": node})
        self._node = node

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return f"{self._node}: {msg}", kwargs


class Context:
    """One machine's shared parts; its methods may be called from several threads at once."""

    def __init__(self, container: ContainerChannel, on_command: Callable[[CommandResult], None]) -> None:
        self.container = container
        self.node = container.name
        self.log = _NodeLog(container.name)
        self.callbacks: list[Callable[[], Any]] = []
        self._on_command = on_command
        self._history: deque[CommandResult] = deque(maxlen=HISTORY)
        self._lock = threading.Lock()
        self._in_callbacks = threading.local()

    def shell(self) -> ShellChannel:
        """The shell of the boot that runs now."""
        return self.container.shell()

    def bus(self) -> BusChannel:
        """The systemd of the boot that runs now."""
        return self.container.bus()

    @property
    def history(self) -> list[CommandResult]:
        """The last commands, oldest first."""
        with self._lock:
            return list(self._history)

    def record(self, result: CommandResult, *, polled: bool = False) -> None:
        """Remember a command. Of one that is tried again and again with the same result, the last try is enough."""
        if result.stderr and self.log.isEnabledFor(logging.INFO):
            self.log.info(
                "stderr of `%s`: %s", result.command_line, result.stderr[-OUTPUT_TAIL:].rstrip("\n")
            )
        short = result
        if len(result.stdout) > OUTPUT_TAIL or len(result.stderr) > OUTPUT_TAIL:
            short = replace(result, stdout=result.stdout[-OUTPUT_TAIL:], stderr=result.stderr[-OUTPUT_TAIL:])
        with self._lock:
            last = self._history[-1] if self._history else None
            if polled and last and (last.command, last.exit_code) == (short.command, short.exit_code):
                self._history.pop()
            self._history.append(short)
        self._on_command(result)

    def run_callbacks(self) -> None:
        """Call what watches over the test (polling conditions); not again while one of them runs."""
        if not self.callbacks or getattr(self._in_callbacks, "now", False):
            return
        self._in_callbacks.now = True
        try:
            for callback in list(self.callbacks):
                callback()
        finally:
            self._in_callbacks.now = False

    def meanwhile(self) -> Callable[[], object] | None:
        """What is to be called again and again while something runs; None where nothing watches."""
        return self.run_callbacks if self.callbacks else None

    @contextlib.contextmanager
    def nested(self, message: str, attrs: Mapping[str, str] | None = None) -> Iterator[None]:
        """Log what begins, and how long it took."""
        begin = time.monotonic()
        self.log.info("%s", message, extra={"attrs": dict(attrs or {})})
        try:
            yield
        except BaseException:
            self.log.info("(failed: %s, after %.2f seconds)", message, time.monotonic() - begin)
            raise
        self.log.info("(finished: %s, in %.2f seconds)", message, time.monotonic() - begin)

    def waiting(self, what: str) -> Waiting:
        """Log a wait; one that fails ends in the test's own line."""
        return Waiting(self, what)

    def retry(
        self,
        attempt: Callable[[bool], T | None],
        *,
        timeout: Seconds | None,
        what: str,
        last: Callable[[], str | None] = lambda: None,
        interval: tuple[float, float] = (0.005, 0.2),
    ) -> T:
        """Try until something other than None and False comes of it; `last` says what the last try found.

        Raises TimeoutExceeded, and NotRunningError at once where the node ends.
        """

        def guarded(is_last: bool) -> T | None:
            return self.retry_once(lambda: attempt(is_last))

        with self.waiting(what):
            try:
                return timing.retry(guarded, timeout=seconds_of(timeout), what=what, interval=interval)
            except TimeoutExceeded as error:
                if error.what != what:
                    raise  # of something that watches over the test
                raise self.timed_out(what, error.elapsed, error.limit, last()) from None

    def retry_once(self, attempt: Callable[[], T]) -> T | None:
        """One try of a wait; None where nobody can be asked just now. Raises NotRunningError where the node ended."""
        self.run_callbacks()
        try:
            return attempt()
        except NotRunningError:
            if not self.may_answer_again():
                raise
            time.sleep(_MOMENT)
            return None

    def may_answer_again(self) -> bool:
        """Whether a node that could not be asked may answer again: it boots anew, or lost no more than its agent."""
        return self.container.running

    def timed_out(self, what: str, elapsed: float, limit: float, last: str | None) -> TimeoutExceeded:
        """The error of a wait that came to nothing."""
        return TimeoutExceeded(node=self.node, what=what, elapsed=elapsed, limit=limit, last=last)

    def expired(
        self, deadline: Deadline, limit: float | None, what: str, last: str | None
    ) -> TimeoutExceeded:
        """The same from a deadline."""
        return self.timed_out(what, deadline.elapsed, limit or 0.0, last)


class Waiting:
    """A context manager that logs a wait, and takes lower floors out of a failed assertion's traceback."""

    def __init__(self, context: Context, what: str) -> None:
        self._context = context
        self._what = what
        self._begin = 0.0

    def __enter__(self) -> None:
        self._begin = time.monotonic()
        self._context.log.info("%s", self._what)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        verb = "finished" if error is None else "failed"
        self._context.log.info("(%s: %s, in %.2f seconds)", verb, self._what, time.monotonic() - self._begin)
        if isinstance(error, RequestedAssertionFailed):
            error.__traceback__ = None
            error.__suppress_context__ = True
