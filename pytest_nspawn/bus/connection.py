"""One D-Bus connection, peer to peer: calls and their answers, and signals to whoever waits for them.

The D-Bus specification, "Message Protocol" and "Authentication Protocol". This is the only importer of jeepney, and it
imports it when a node is spoken to: a test run that asks no systemd does not pay for it.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_nspawn.errors import MachineError, TimeoutExceeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_nspawn.timing import Deadline

CALL_LIMIT = 60.0
"""Seconds that systemd has for one answer; a daemon-reload may keep it busy for some."""

LEAST_PATIENCE = 1.0
"""Seconds for an answer even after a deadline: one look is always allowed."""

NO_REPLY = "org.freedesktop.DBus.Error.NoReply"

_MESSAGE_LIMIT = 1 << 27  # bytes, by the D-Bus specification
_SIGNAL = 4


@dataclass(kw_only=True, eq=False, repr=False)
class BusError(MachineError):
    """Raised when systemd refuses or does not answer; `dbus_name` is the error's name on the bus."""

    dbus_name: str


class DroppedError(Exception):
    """Raised when the other side closed the connection, or spoke no D-Bus."""


class Events:
    """Signals in which one of some byte strings occurs, in order.

    Raw bytes: systemd sends thousands of long signals while it boots, and most are of no interest to anybody.
    """

    def __init__(self, needles: tuple[bytes, ...]) -> None:
        self._needles = needles
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._found: list[bytes | None] = []

    def add(self, *needles: bytes) -> bool:
        """Gather signals with these too; whether any is new."""
        new = tuple(needle for needle in needles if needle not in self._needles)
        self._needles += new
        return bool(new)

    def put(self, raw: bytes | None) -> None:
        """Take a signal if it is wanted; None says that the connection is dropped."""
        if raw is None or any(needle in raw for needle in self._needles):
            self._queue.put(raw)

    def wait(self, deadline: Deadline | None) -> bool:
        """Wait for a signal; False where the deadline came first. Raises DroppedError."""
        if not self._found:
            remaining = None if deadline is None else deadline.remaining()
            with contextlib.suppress(queue.Empty):
                self._found.append(
                    self._queue.get(timeout=None if remaining is None else max(0.0, remaining))
                )
        if self._found == [None]:
            raise DroppedError
        return bool(self._found)

    def get_all(self) -> list[bytes]:
        """The signals that are there."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._found.append(self._queue.get_nowait())
        signals = [raw for raw in self._found if raw is not None]
        # That the connection is dropped is told after the last signal, and ever after.
        self._found = [None] if len(signals) < len(self._found) else []
        return signals


_NUDGE = 0.02
"""Seconds after which a connection's first call is helped along."""


class Connection:
    """One D-Bus connection, peer to peer; its thread drains it until it is dropped."""

    def __init__(self, sock: socket.socket, node: str, *, limit: float = CALL_LIMIT) -> None:
        self.node = node
        self.dropped = False
        self._heard = False
        self._limit = limit
        self._sock = sock
        self._lock = threading.Lock()
        self._serials = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[Any]] = {}
        self._watches: tuple[Events, ...] = ()
        self._fault: Exception | None = None
        try:
            sock.settimeout(limit)
            _authenticate(sock, node)
            sock.settimeout(None)
        except TimeoutError:
            sock.close()
            problem = f"its systemd gave no answer in {limit:g} s"
            raise BusError(node=node, problem=problem, dbus_name=NO_REPLY) from None
        except BaseException:
            sock.close()
            raise
        self._thread = threading.Thread(target=self._drain, name=f"bus of {node}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; whoever waits on it gets DroppedError."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    @contextlib.contextmanager
    def watch(self, *needles: bytes) -> Iterator[Events]:
        """Gather signals in which one of the needles occurs."""
        events = Events(needles)
        with self._lock:
            if self.dropped:
                raise DroppedError from self._fault
            self._watches += (events,)
        try:
            yield events
        finally:
            with self._lock:
                self._watches = tuple(each for each in self._watches if each is not events)

    def call(self, *messages: Any, deadline: Deadline | None = None) -> list[Any]:
        """Send method calls at once; the bodies of their answers.

        Raises BusError for the first that is an error, or that is not answered, and TimeoutExceeded after the deadline.
        """
        slots: dict[int, queue.SimpleQueue[Any]] = {}
        try:
            with self._lock:
                if self.dropped:
                    raise DroppedError from self._fault
                for _message in messages:
                    slots[next(self._serials)] = queue.SimpleQueue()
                self._answers.update(slots)
                data = b"".join(
                    message.serialise(serial=serial) for message, serial in zip(messages, slots, strict=True)
                )
                try:
                    self._sock.sendall(data)
                except OSError as error:
                    raise DroppedError from error
            answers = [self._answer(slot, deadline) for slot in slots.values()]
        except queue.Empty:
            if deadline is not None and deadline.expired:
                raise expired(deadline, "waiting for an answer of systemd", self.node) from None
            problem = f"its systemd gave no answer in {self._limit:g} s"
            raise BusError(node=self.node, problem=problem, dbus_name=NO_REPLY) from None
        finally:
            with self._lock:
                for serial in slots:
                    self._answers.pop(serial, None)
        return [self._body(answer) for answer in answers]

    def _answer(self, slot: queue.SimpleQueue[Any], deadline: Deadline | None) -> Any:
        """Wait for one answer, and for the connection's first with nudges.

        What systemd reads in one go with the handshake's BEGIN it leaves in its buffer until more arrives.
        """
        nudges = 0
        while not self._heard and nudges * _NUDGE < self._patience(deadline):
            with contextlib.suppress(queue.Empty):
                return slot.get(timeout=_NUDGE)
            nudges += 1
            with self._lock, contextlib.suppress(OSError):
                self._sock.sendall(_ping().serialise(serial=next(self._serials)))
        return slot.get(timeout=self._patience(deadline))

    def _patience(self, deadline: Deadline | None) -> float:
        remaining = None if deadline is None else deadline.remaining()
        return self._limit if remaining is None else min(self._limit, max(LEAST_PATIENCE, remaining))

    def _body(self, answer: Any) -> Any:
        from jeepney.low_level import HeaderFields, MessageType

        if answer is None:
            raise DroppedError from self._fault
        if answer.header.message_type is MessageType.error:
            name = answer.header.fields.get(HeaderFields.error_name, "")
            raise BusError(
                node=self.node, problem=str(answer.body[0]) if answer.body else name, dbus_name=name
            )
        return answer.body

    def _drain(self) -> None:
        try:
            self._dispatch_all()
        except Exception as fault:  # noqa: BLE001 (what a node sends may be anything; it is kept as the cause)
            self._fault = fault
        with self._lock:
            self.dropped = True
            self._sock.close()
            for slot in self._answers.values():
                slot.put(None)
            for events in self._watches:
                events.put(None)

    def _dispatch_all(self) -> None:
        from jeepney.low_level import calc_msg_size

        buffer = bytearray()
        while data := self._sock.recv(1 << 16):
            buffer += data
            while len(buffer) >= 16:
                size = calc_msg_size(bytes(buffer[:16]))
                if size > _MESSAGE_LIMIT:
                    raise ValueError(f"a message of {size} bytes")
                if len(buffer) < size:
                    break
                self._dispatch(bytes(buffer[:size]))
                del buffer[:size]

    def _dispatch(self, raw: bytes) -> None:
        from jeepney.low_level import HeaderFields, Message

        if raw[1] == _SIGNAL:
            for events in self._watches:
                events.put(raw)
            return
        message = Message.from_buffer(raw)
        slot = self._answers.get(message.header.fields.get(HeaderFields.reply_serial, 0))
        if slot is not None:
            self._heard = True
            slot.put(message)


def _authenticate(sock: socket.socket, node: str) -> None:
    """EXTERNAL, naming no uid: the kernel tells PID 1 who connected, in terms of its own user namespace."""
    sock.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\n")
    # Byte by byte up to the line's end: nothing may be taken that is no longer the handshake's.
    lines = iter(lambda: _line(sock), b"")
    for line in lines:
        if line.startswith(b"OK"):
            sock.sendall(b"BEGIN\r\n")
            return
        if not line.startswith(b"DATA"):
            problem = f"its systemd refused the connection: {line.decode(errors='replace').strip()}"
            raise BusError(node=node, problem=problem, dbus_name="org.freedesktop.DBus.Error.AuthFailed")
    raise ConnectionResetError("systemd closed the connection during authentication")


def _line(sock: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\r\n") and len(line) < 1024:
        byte = sock.recv(1)
        if not byte:
            return b""
        line += byte
    return line


def _ping() -> Any:
    return method_call("/org/freedesktop/systemd1", "org.freedesktop.DBus.Peer", "Ping", "")


def method_call(path: str, interface: str, method: str, signature: str, *body: object) -> Any:
    """A message for `Connection.call`."""
    from jeepney.low_level import Endianness, Header, HeaderFields, Message, MessageType

    # Not jeepney's new_method_call: that wants a destination, and a peer has none.
    fields = {HeaderFields.path: path, HeaderFields.interface: interface, HeaderFields.member: method}
    if signature:
        fields[HeaderFields.signature] = signature
    header = Header(
        Endianness.little,
        MessageType.method_call,
        flags=0,
        protocol_version=1,
        body_length=-1,
        serial=-1,
        fields=fields,
    )
    return Message(header, body)


def parse_body(raw: bytes) -> tuple[Any, ...]:
    """The arguments of a signal."""
    from jeepney.low_level import Message

    body: tuple[Any, ...] = Message.from_buffer(raw).body
    return body


def expired(deadline: Deadline | None, what: str, node: str, last: object = None) -> TimeoutExceeded:
    """The error of a deadline that passed."""
    limit, elapsed = (deadline.limit or 0.0, deadline.elapsed) if deadline is not None else (0.0, 0.0)
    return TimeoutExceeded(
        what=what, elapsed=elapsed, limit=limit, last=str(last) if last is not None else None, node=node
    )
