"""Messages between the test process and the programs in the sandbox: JSON with descriptors beside it.

A message is a length of four bytes, then JSON. Descriptors travel with the first byte (unix(7), SCM_RIGHTS) and
arrive close-on-exec: without MSG_CMSG_CLOEXEC any program that the receiver starts meanwhile would inherit them.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Message = dict[str, Any]

_HEADER = struct.Struct("!I")
_MOST_FDS = 16


class TornMessageError(OSError):
    """Raised when the other side went away in the middle of a message."""


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message; blocks until all of it is handed to the kernel. Raises OSError where the peer is gone."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    data = _HEADER.pack(len(payload)) + payload
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Receive one message and its descriptors, which the caller then owns; None at end of file."""
    fds = array.array("i")
    size = _MOST_FDS * fds.itemsize
    header, ancillary, _flags, _address = sock.recvmsg(
        _HEADER.size, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL
    )
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    try:
        if not header:
            return None
        payload = bytearray(_HEADER.unpack(header)[0]) if len(header) == _HEADER.size else None
        if payload is None or not _fill(sock, payload):
            raise TornMessageError("the peer went away in the middle of a message")
        message: Message = json.loads(payload)
    except BaseException:
        close_all(fds)
        raise
    return message, list(fds)


def _fill(sock: socket.socket, buffer: bytearray) -> bool:
    view = memoryview(buffer)
    while view:
        count = sock.recv_into(view)
        if not count:
            return False
        view = view[count:]
    return True


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that a message brought and nobody wants."""
    for fd in fds:
        os.close(fd)
