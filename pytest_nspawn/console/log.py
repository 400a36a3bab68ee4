"""What a console printed: bytes in unlinked files, which threads append to, read and wait for."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_nspawn.timing import Deadline

LOG_LIMIT = 1 << 26
"""Bytes that are kept at least, of all that was printed; the oldest go first."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Log:
    """A stream of bytes, kept; positions count from its very first byte."""

    def __init__(self, limit: int = LOG_LIMIT) -> None:
        self.end = 0
        self.ended = False
        self._limit = limit
        self._changed = threading.Condition()
        self._files: list[_File] = [_File(0)]

    @property
    def start(self) -> int:
        """The position of the first byte that is still kept."""
        return self._files[0].base

    def append(self, data: bytes) -> None:
        """Add bytes. On a full disk what was kept goes: a node must not stand still for want of a reader."""
        with self._changed:
            if self.end - self._files[-1].base >= self._limit:
                self._drop(self._files[:-1])
                self._files.append(_File(self.end))
            try:
                self._files[-1].write(data, self.end)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._files.append(_File(self.end + len(data)))
                self._drop(self._files[:-1])
            self.end += len(data)
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that nothing more will come."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def wait(self, position: int, deadline: Deadline) -> bool:
        """Wait for bytes at a position; False where the deadline came first. Raises EOFError where none will come."""
        with self._changed:
            while position >= self.end:
                if self.ended:
                    raise EOFError
                if deadline.expired:
                    return False
                self._changed.wait(deadline.remaining())
        return True

    def read(self, position: int, size: int) -> tuple[int, bytes]:
        """Up to `size` bytes from a position (or from the first that is kept), and the position after them."""
        with self._changed:
            position = max(position, self.start)
            file = next(file for file in reversed(self._files) if file.base <= position)
            data = os.pread(file.fd, size, position - file.base)
        return position + len(data), data

    def read_from(self, position: int) -> bytes:
        """All bytes from a position on."""
        pieces = []
        position, data = self.read(position, 1 << 20)
        while data:
            pieces.append(data)
            position, data = self.read(position, 1 << 20)
        return b"".join(pieces)

    def _drop(self, files: list[_File]) -> None:
        self._files = [file for file in self._files if file not in files]
        for file in files:
            file.close()


class _File:
    """A part of the log; closed with its last user."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.fd, path = tempfile.mkstemp(prefix="pytest-nspawn-console-")
        os.unlink(path)
        self.close = weakref.finalize(self, os.close, self.fd)
        # A thread that drains a console may still append while the interpreter ends.
        self.close.atexit = False

    def write(self, data: bytes, position: int) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self.fd, view, position - self.base)
            position += count
            view = view[count:]
