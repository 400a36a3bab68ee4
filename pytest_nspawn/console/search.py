"""Searching a console with pexpect: the only importer of pexpect, and itself imported for the first search."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from pexpect.exceptions import EOF, TIMEOUT
from pexpect.spawnbase import SpawnBase

from pytest_nspawn.console.text import Plain

if TYPE_CHECKING:
    from pytest_nspawn.console.log import Log
    from pytest_nspawn.timing import Deadline

    _SpawnBase = SpawnBase[str]
else:
    _SpawnBase = SpawnBase  # generic in its stubs only

# pexpect searches a window of what it last read. Pieces of half a window let nothing fall between two windows, and a
# match be as long as a piece; without a window its search is quadratic.
_PIECE = 1 << 14
_WINDOW = 2 * _PIECE


class Search(_SpawnBase):
    """What was printed and not yet consumed; one thread at a time."""

    _before: io.StringIO  # pexpect's own, untyped there

    def __init__(self, log: Log) -> None:
        super().__init__(
            timeout=None, maxread=_PIECE, searchwindowsize=_WINDOW, encoding="utf-8", codec_errors="replace"
        )
        self.delayafterread = None
        self._log_read = log
        self._position = 0
        self._plain = Plain()
        self._deadline: Deadline
        self._last_position: int | None = None

    def find(self, pattern: re.Pattern[str], deadline: Deadline) -> str | None:
        """The first match, which is consumed with all before it; None where the deadline came first.

        Raises EOFError where nothing more will come.
        """
        self._deadline = deadline
        self._last_position = None
        try:
            # No time-out of pexpect's: that goes by the wall clock.
            self.expect_list([pattern], timeout=None)
        except TIMEOUT:
            return None
        except EOF:
            raise EOFError from None
        return str(self.after)

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> str:
        """What was printed next; waits for it. For pexpect."""
        text = ""
        while not text:
            try:
                if not self._log_read.wait(self._position, self._deadline) or self._is_over():
                    raise TIMEOUT("")
            except EOFError as error:
                raise EOF("") from error
            self._position, data = self._log_read.read(self._position, _PIECE)
            text = self._plain.take(data)
        self._forget()
        return text

    def _is_over(self) -> bool:
        """Whether the deadline has come: what was printed before it still counts, what a chatty node adds does not."""
        if self._deadline.expired and self._last_position is None:
            self._last_position = self._log_read.end
        return self._last_position is not None and self._position >= self._last_position

    def _forget(self) -> None:
        """Let go of what was searched: pexpect keeps it, for `before`, without a limit."""
        if self._before.tell() > 4 * _WINDOW:
            rest = self._before.getvalue()[-_WINDOW:]
            self._before = io.StringIO()
            self._before.write(rest)
