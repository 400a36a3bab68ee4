"""Commands, files and sockets in a node: what its agent hands out, one channel a boot.

Nothing of a node is resolved from outside: the agent opens, connects and starts, and the descriptors cross the border
(unix(7), SCM_RIGHTS). Methods may be called from several threads at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import mmap
import os
import select
import shlex
import signal
import socket
import struct
import sys
import tempfile
import termios
import threading
import time
import tty
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Self, cast

from pytest_nspawn import wire
from pytest_nspawn.errors import ConfigError, MachineError, NotRunningError
from pytest_nspawn.model import CommandResult, line_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TIMED_OUT = 124
"""The exit code of a command that outlived its limit, as timeout(1) gives it."""

_CHUNK = 1 << 16
_IN_MEMORY = 1 << 24
"""Bytes of an output that are kept in memory; beyond that it goes to an unlinked file."""

MEANWHILE = 0.25
"""Seconds between two calls of what watches over a command."""

_TERMINATION = 0.5
"""Seconds that a command has between SIGTERM and SIGKILL."""

_GONE = "the node ended, or its agent was killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """What `stat` tells of a file in the node: as in inode(7); `mtime` in seconds since the epoch."""

    mode: int
    size: int
    mtime: float
    uid: int
    gid: int


class RemoteProcess:
    """A process in the node that runs on; its streams are binary files, unbuffered."""

    def __init__(self, shell: Shell, command: str | tuple[str, ...], number: int, fds: Sequence[int]) -> None:
        self.command = command
        self.node = shell.node
        self._shell = shell
        self._number = number
        self.stdout: IO[bytes] = os.fdopen(fds[0], "rb", buffering=0)
        self.stderr: IO[bytes] = os.fdopen(fds[1], "rb", buffering=0)
        self.stdin: IO[bytes] | None = os.fdopen(fds[3], "wb", buffering=0) if len(fds) > 3 else None
        self._status = fds[2]
        self._exit_code: int | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<RemoteProcess {self.command!r} on {self.node}>"

    def poll(self) -> int | None:
        """The exit code, or None while it runs. Raises NotRunningError where the node ended under it."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code (a signal is 128 and its number).

        Raises TimeoutError after `timeout` seconds, NotRunningError where the node ended under it.
        """
        code = self._wait(timeout)
        if code is None:
            raise TimeoutError(f"{self.node}: {self.command!r} still runs after {timeout:g} s")
        return code

    def terminate(self) -> None:
        """Send SIGTERM to it and to all that it started in its session."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL likewise."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal likewise; nothing where it has ended."""
        if self._exit_code is None:
            self._shell.ask("kill", command=self._number, number=int(number))

    def close(self) -> None:
        """Close this side's ends of its streams; the process goes on."""
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        with self._lock:
            if self._status >= 0:
                os.close(self._status)
                self._status = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with contextlib.suppress(NotRunningError):  # it ended with its node
                if self._exit_code is None and self._status >= 0 and self._wait(0) is None:
                    self.kill()
        finally:
            self.close()

    def status_fd(self) -> int:
        """Readable once it has ended."""
        return self._status

    def _wait(self, timeout: float | None) -> int | None:
        with self._lock:
            if self._exit_code is None:
                if not readable(self._status, timeout):
                    return None
                data = os.read(self._status, 4)
                if len(data) < 4:
                    why = self._shell.last_words() or _GONE
                    raise NotRunningError(node=self.node, problem=f"nobody saw {self.command!r} end: {why}")
                self._exit_code = struct.unpack("i", data)[0]
            return self._exit_code


class Shell:
    """One boot's agent. Raises NotRunningError from every method once that boot has ended."""

    def __init__(self, node: str, channel: socket.socket) -> None:
        self.node = node
        self._channel = channel
        self._lock = threading.Lock()
        self.alive = True

    @classmethod
    def from_fd(cls, node: str, channel: int) -> Shell:
        """The same over a descriptor that the sandbox handed out."""
        return cls(node, socket.socket(fileno=channel))

    def close(self) -> None:
        """End the agent; what it started in the node runs on."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        with self._lock:  # whoever was asking has been woken
            self._channel.close()

    def ask(self, op: str, **fields: Any) -> tuple[wire.Message, list[int]]:
        """One request to the agent. Raises the OSError that it met, NotRunningError where it is gone."""
        with self._lock:
            # An agent that has ended may have said why.
            with contextlib.suppress(OSError):
                wire.send(self._channel, {"op": op, **fields})
            received = self._receive()
        if received is None or "failed" in received[0]:
            self.alive = False
            problem = received[0]["failed"] if received is not None else _GONE
            raise NotRunningError(node=self.node, problem=problem)
        reply, fds = received
        if "errno" in reply:
            wire.close_all(fds)
            raise OSError(reply["errno"], reply["problem"], fields.get("path"))
        return reply, fds

    def last_words(self) -> str | None:
        """What the agent said when it failed; to be asked only once it has ended."""
        with self._lock:
            received = self._receive()
        return received[0].get("failed") if received is not None else None

    def _receive(self) -> tuple[wire.Message, list[int]] | None:
        try:
            return wire.receive(self._channel)
        except OSError:
            return None

    def popen(
        self,
        command: str | Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bool = False,
    ) -> RemoteProcess:
        """Start a command: text for bash (`set -euo pipefail`), or an argument list; a login environment for both.

        `stdin=True` gives it a pipe, else it reads nothing. Raises ConfigError for an unknown `user`, MachineError
        where the node has no process to spare.
        """
        words = command if isinstance(command, str) else tuple(command)
        try:
            reply, fds = self.ask(
                "spawn",
                script=_script(words, env or {}, cwd),
                user=self._user(user) if user is not None else None,
                stdin=stdin,
            )
        except OSError as error:
            problem = f"no process could be started for `{line_of(words)}`: {error.strerror}"
            if error.errno == errno.EAGAIN:
                problem += "; a limit of processes is reached (of the node: Node(tasks=...))"
            raise MachineError(node=self.node, problem=problem) from error
        return RemoteProcess(self, words, reply["command"], fds)

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | bytes | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> CommandResult:
        """Run a command until it has ended and closed its stdout; `timeout` in seconds, then the exit code is 124.

        `meanwhile` is called again and again; a command during which it raises is killed.
        """
        begin = time.monotonic()
        data = stdin.encode() if isinstance(stdin, str) else stdin
        process = self.popen(command, user=user, env=env, cwd=cwd, stdin=data is not None)
        with process, _Gathered(process, data or b"", meanwhile) as outputs:
            deadline = None if timeout is None else begin + timeout
            ended = outputs.gather(deadline)
            code = process.wait(0) if ended else _end(process, outputs)
            return CommandResult(
                command=process.command,
                exit_code=code,
                stdout=outputs.text(0),
                stderr=outputs.text(1),
                duration=time.monotonic() - begin,
                node=self.node,
            )

    def interact(self, argv: Sequence[str] | None = None) -> int:
        """Give the test process's terminal to a login shell (or program) in the node; its exit code comes back."""
        terminal = sys.__stdin__
        if terminal is None or not terminal.isatty():
            raise ConfigError(
                problem="an interactive shell needs a terminal",
                node=self.node,
                hint="run pytest in one, with -s",
            )
        size = list(os.get_terminal_size(terminal.fileno()))[::-1]
        reply, (master, status) = self.ask(
            "terminal",
            argv=list(
                argv or ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash --login; exec sh -l"]
            ),
            user=None,
            size=size,
            term=os.environ.get("TERM", "dumb"),
        )
        saved = termios.tcgetattr(terminal.fileno())
        resized = signal.signal(signal.SIGWINCH, lambda *_: _copy_size(terminal.fileno(), master))
        try:
            tty.setraw(terminal.fileno())
            _relay(terminal.fileno(), master)
            return int(struct.unpack("i", os.read(status, 4))[0]) if readable(status, 1.0) else 0
        finally:
            signal.signal(signal.SIGWINCH, resized)
            termios.tcsetattr(terminal.fileno(), termios.TCSADRAIN, saved)
            wire.close_all([master, status])
            with contextlib.suppress(NotRunningError):
                self.ask("kill", command=reply["command"], number=int(signal.SIGHUP))

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        """A descriptor of a regular file of the node. Raises OSError as open(2) does."""
        return self.ask("open", path=path, flags=flags, mode=mode)[1][0]

    def stat(self, path: str, *, follow: bool = True) -> FileStatus:
        """stat(2) or lstat(2) in the node. Raises OSError."""
        return FileStatus(**self.ask("stat", path=path, follow=follow)[0])

    def exists(self, path: str) -> bool:
        """Whether a path leads to something."""
        try:
            self.stat(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        return True

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, sorted. Raises OSError."""
        return cast("list[str]", self.ask("list", path=path)[0]["names"])

    def mkdir(self, path: str, mode: int = 0o755, *, parents: bool = True) -> None:
        """Make a directory, with its parents; one that is there is well. Raises OSError."""
        self.ask("mkdir", path=path, mode=mode, parents=parents)

    def symlink(self, target: str, path: str) -> None:
        """Make a symbolic link. Raises OSError."""
        self.ask("symlink", target=target, path=path)

    def readlink(self, path: str) -> str:
        """Where a symbolic link leads. Raises OSError."""
        return cast("str", self.ask("readlink", path=path)[0]["target"])

    def unlink(self, path: str) -> None:
        """Remove a file. Raises OSError."""
        self.ask("unlink", path=path)

    def chmod(self, path: str, mode: int) -> None:
        """Change a file's mode. Raises OSError."""
        self.ask("chmod", path=path, mode=mode)

    def watch(self, path: str) -> tuple[bool, int]:
        """Whether a path exists, and a descriptor (the caller's) that is readable when something changed near it."""
        reply, fds = self.ask("watch", path=os.path.join("/", path))
        return reply["exists"], fds[0]

    def connect_unix(
        self, path: str, kind: socket.SocketKind = socket.SOCK_STREAM, timeout: float = 10.0
    ) -> socket.socket:
        """A socket connected to one in the node. Raises OSError as connect(2) does."""
        return self._connect(socket.AF_UNIX, kind, path, 0, timeout)

    def connect_tcp(self, port: int, addr: str = "localhost", timeout: float = 10.0) -> socket.socket:
        """A TCP socket, connected from inside the node's network; names as the node knows them. Raises OSError."""
        problem = OSError(errno.EADDRNOTAVAIL, f"{self.node} knows no address of {addr!r}")
        for address in self._addresses(addr):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            try:
                return self._connect(family, socket.SOCK_STREAM, address, port, timeout)
            except OSError as error:
                problem = error
        raise problem

    def _connect(
        self, family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int, timeout: float
    ) -> socket.socket:
        reply, fds = self.ask("connect", family=int(family), kind=int(kind), address=address, port=port)
        sock = socket.socket(fileno=fds[0])
        try:
            if not reply["connected"]:
                if not select.select([], [sock], [], timeout)[1]:
                    raise TimeoutError(errno.ETIMEDOUT, f"{address} port {port} does not answer")
                if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(code, f"{os.strerror(code)}: {address} port {port}")
            sock.setblocking(True)
        except OSError:
            sock.close()
            raise
        return sock

    def _addresses(self, name: str) -> list[str]:
        """What a name means in the node; its name service is asked there, never loaded here."""
        if name == "localhost":
            return ["127.0.0.1", "::1"]
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(name))]
        found = []
        for line in self._text("/etc/hosts").splitlines():
            address, *names = line.partition("#")[0].split() or [""]
            if name in names:
                found.append(address)
        if not found:
            result = self.run(["getent", "ahosts", name], timeout=10)
            found = [line.split()[0] for line in result.stdout.splitlines() if " STREAM" in line]
        return found

    def _user(self, name: str) -> dict[str, Any]:
        """A user of the node as numbers: from its own files, else from its name service."""
        entry = _line_of(self._text("/etc/passwd"), name)
        if entry is None:
            entry = _line_of(self.run(["getent", "passwd", name], timeout=10).stdout, name)
        if entry is None:
            raise ConfigError(problem="the node has no such user", node=self.node, value=name)
        _, _, uid, gid, _, home, program = entry
        lines = [line.split(":") for line in self._text("/etc/group").splitlines()]
        groups = [int(words[2]) for words in lines if len(words) == 4 and name in words[3].split(",")]
        numbers = {"uid": int(uid), "gid": int(gid), "groups": [int(gid), *groups]}
        return {"name": name, "home": home, "shell": program or "/bin/sh", **numbers}

    def _text(self, path: str) -> str:
        try:
            fd = self.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return ""
        with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
            return file.read()


def _line_of(text: str, name: str) -> list[str] | None:
    lines = [line.split(":") for line in text.splitlines()]
    return next((words for words in lines if words[0] == name and len(words) == 7), None)


def _script(command: str | tuple[str, ...], env: Mapping[str, str], cwd: str | None) -> str:
    """The text for bash; what comes before the command stays on its first line, so that line numbers hold."""
    before = "".join(f"export {name}={shlex.quote(value)}; " for name, value in env.items())
    if cwd is not None:
        before += f"cd -- {shlex.quote(cwd)}; "
    return before + (command if isinstance(command, str) else f"exec {shlex.join(command)}")


class _Gathered:
    """Reads both outputs of a process as they come, and feeds its stdin."""

    def __init__(self, process: RemoteProcess, data: bytes, meanwhile: Callable[[], object] | None) -> None:
        self._process = process
        self._meanwhile = meanwhile
        self._data = memoryview(data)
        self._open = {process.stdout.fileno(): 0, process.stderr.fileno(): 1}
        self._files = [tempfile.SpooledTemporaryFile(_IN_MEMORY) for _ in range(2)]  # noqa: SIM115 (closed by __exit__)
        self._poll = select.poll()
        for fd in (*self._open, process.status_fd()):
            self._poll.register(fd, select.POLLIN)
        self._ended = False
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._poll.register(process.stdin.fileno(), select.POLLOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def gather(self, deadline: float | None) -> bool:
        """Read until the process has ended and its stdout is closed; False where the deadline came first."""
        stdout = self._process.stdout.fileno()
        due = time.monotonic() + MEANWHILE
        while not self._ended or stdout in self._open:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            step = left if self._meanwhile is None else min(MEANWHILE, MEANWHILE if left is None else left)
            events = self._poll.poll(None if step is None else step * 1000 + 1)
            if not events and left == 0.0:
                return False
            if self._meanwhile is not None and time.monotonic() >= due:
                self._meanwhile()
                due = time.monotonic() + MEANWHILE
            for fd, _event in events:
                self._ready(fd)
        # What still holds stderr (a job in the background) is not waited for, but what is there is read.
        for fd in list(self._open):
            while fd in self._open and readable(fd, 0):
                self._read(fd)
        return True

    def text(self, index: int) -> str:
        """An output, decoded with replacement characters."""
        file = self._files[index]
        if file.tell() > _IN_MEMORY:
            # A gigabyte is decoded from the file, not from a copy of it.
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return str(content, "utf-8", "replace")
        file.seek(0)
        return file.read().decode(errors="replace")

    def _ready(self, fd: int) -> None:
        if fd in self._open:
            self._read(fd)
        elif fd == self._process.status_fd():
            self._poll.unregister(fd)
            self._ended = True
        else:
            self._feed(fd)

    def _read(self, fd: int) -> None:
        data = os.read(fd, _CHUNK)
        if data:
            self._files[self._open[fd]].write(data)
        else:
            self._poll.unregister(fd)
            del self._open[fd]

    def _feed(self, fd: int) -> None:
        try:
            self._data = self._data[os.write(fd, self._data[:_CHUNK]) :]
        except BrokenPipeError:
            self._data = self._data[:0]
        if not self._data and self._process.stdin is not None:
            self._poll.unregister(fd)
            self._process.stdin.close()


def _end(process: RemoteProcess, outputs: _Gathered) -> int:
    """Stop a command that is too slow: politely, then not."""
    for send in (process.terminate, process.kill):
        send()
        if outputs.gather(time.monotonic() + _TERMINATION):
            break
    return TIMED_OUT


def readable(fd: int, timeout: float | None) -> bool:
    """Whether a descriptor can be read, or has come to its end, within `timeout` seconds; None waits for it."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def _copy_size(source: int, target: int) -> None:
    fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


def _relay(terminal: int, master: int) -> None:
    """Copy between a terminal and a program's until the program's is closed (EIO, pty(7))."""
    while True:
        for fd in select.select([terminal, master], [], [])[0]:
            try:
                data = os.read(fd, _CHUNK)
            except OSError as error:
                if error.errno == errno.EIO:
                    return
                raise
            if not data:
                return
            os.write(1 if fd == master else master, data)
