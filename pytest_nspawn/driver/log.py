"""The `log` of a testScript: the NixOS test driver's logger, over the standard library's."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping

_LOGGER = logging.getLogger("pytest_nspawn.script")

Sink = Callable[[str], object]


class ScriptLog:
    """Log of one script. `sink` gets each line too: a terminal, where nothing shows records of logging."""

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink
        self._serial = False

    def log(self, message: object, attributes: Mapping[str, str] = {}) -> None:
        """Log a message; the attribute `machine` names the node that it is about."""
        self._emit(logging.INFO, message, attributes)

    def info(self, *args: object, **attributes: str) -> None:
        """Log what `print` would print."""
        self._emit(logging.INFO, " ".join(map(str, args)), attributes)

    def warning(self, *args: object, **attributes: str) -> None:
        """Log it as a warning."""
        self._emit(logging.WARNING, " ".join(map(str, args)), attributes)

    def error(self, *args: object, **attributes: str) -> None:
        """Log it as an error."""
        self._emit(logging.ERROR, " ".join(map(str, args)), attributes)

    def log_serial(self, message: str, machine: str) -> None:
        """Log a line of a node's console; only after `serial_stdout_on()`."""
        if self._serial:
            self._emit(logging.INFO, message, {"machine": machine})

    def log_machinestate(self, message: str, machine: str = "") -> None:
        """Log what became of a node."""
        self._emit(logging.INFO, message, {"machine": machine} if machine else {})

    @property
    def serial_logs(self) -> bool:
        """Whether lines of the consoles are logged."""
        return self._serial

    def print_serial_logs(self, enable: bool) -> None:
        """Say whether lines of the consoles are logged."""
        self._serial = enable

    @contextlib.contextmanager
    def nested(self, message: str, attributes: Mapping[str, str] = {}) -> Iterator[None]:
        """Log what a block does and how long it took."""
        begin = time.monotonic()
        self.log(message, attributes)
        try:
            yield
        except BaseException:
            self.log(f"(failed: {message}, after {time.monotonic() - begin:.2f} seconds)", attributes)
            raise
        self.log(f"(finished: {message}, in {time.monotonic() - begin:.2f} seconds)", attributes)

    @contextlib.contextmanager
    def subtest(self, name: str, attributes: Mapping[str, str] = {}) -> Iterator[None]:
        """The same for a part of the test."""
        with self.nested(f"subtest: {name}", attributes):
            yield

    def _emit(self, level: int, message: object, attributes: Mapping[str, str]) -> None:
        machine = attributes.get("machine", "")
        text = f"{machine}: {message}" if machine else str(message)
        _LOGGER.log(level, "%s", text, extra={"attrs": dict(attributes)})
        if self._sink is not None:
            self._sink(text)
