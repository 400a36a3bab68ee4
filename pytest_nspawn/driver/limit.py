"""The global time-out of a testScript."""

from __future__ import annotations

import signal
import threading
import time

from pytest_nspawn.errors import TimeoutExceeded
from pytest_nspawn.machine.context import hidden

__tracebackhide__ = hidden

GLOBAL_TIMEOUT = 3600.0
"""Seconds that a script may take where its test does not say (`globalTimeout`)."""

_GRACE = 5.0
"""Seconds after a script's time-out in which it may end by itself: then what it does outside of nodes is interrupted."""


class Limit:
    """The time that a script has. What it waits for in a node ends at once; anything else is interrupted later."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._begin = 0.0
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._running = self._struck = False
        self._thread = 0
        self._ignored = False

    def __enter__(self) -> None:
        if self._seconds is None:
            return
        self._begin, self._thread = time.monotonic(), threading.get_ident()
        self._running, self._struck = True, False
        # A job of a shell in the background ignores SIGINT, and so would the script.
        self._ignored = _in_main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if self._ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._timer = threading.Timer(self._seconds + _GRACE, self._strike)
        self._timer.daemon = True
        self._timer.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.end()
        if isinstance(error, KeyboardInterrupt) and self._struck:
            raise self._error() from None

    def check(self) -> None:
        """Raise TimeoutExceeded where the time is over."""
        if self._running and time.monotonic() - self._begin > (self._seconds or 0.0):
            raise self._error()

    def end(self) -> None:
        """Stop the clock. Idempotent."""
        with self._lock:
            self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ignored and _in_main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._ignored = False

    def _error(self) -> TimeoutExceeded:
        limit = self._seconds or 0.0
        return TimeoutExceeded(
            what="the testScript (its global time-out)", elapsed=time.monotonic() - self._begin, limit=limit
        )

    def _strike(self) -> None:
        with self._lock:
            # Only what would raise KeyboardInterrupt there: another handler is somebody else's.
            if self._running and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._struck = True
                signal.pthread_kill(threading.main_thread().ident or self._thread, signal.SIGINT)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
