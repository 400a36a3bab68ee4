"""The agent: one a boot of a node, inside the node's namespaces; it hands descriptors out to the test process.

It holds its control socket and what its commands need, has the capabilities of the node's PID 1 and no more, and loads
nothing after it has entered: code and data there belong to the node. Every request is answered at once; commands run
beside it, each with descriptors of its own, so that many callers can have commands under way.

A command is run by a bash that was started ahead, in the login environment, and waits for its script in a memfd: that
takes a third of the time that starting one does. The login environment is what /etc/profile exports; it is asked for
again when the profile has changed, and a bash that was started before that is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import stat
import struct
import termios
import traceback
from typing import TYPE_CHECKING, Any, NoReturn, Self

from pytest_nspawn import wire
from pytest_nspawn.inside import linux

if TYPE_CHECKING:
    from collections.abc import Callable

_SHELLS = ("/run/current-system/sw/bin/bash", "/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash")
_GO, _SCRIPT = 8, 9
_COMMAND_IS_SHORT = 20
"""Milliseconds that a command may take before the shell for the next one is made ready beside it."""

_PROFILE = "[ ! -e /etc/profile ] || . /etc/profile >&2; "
_BASH = (
    f'IFS= read -r -u {_GO} _ || exit 0; IFS= read -r -d "" -u {_SCRIPT} __script; '
    f'exec {_GO}<&- {_SCRIPT}<&-; set -euo pipefail; eval "unset __script; $__script"'
)
# With builtins only: what is exported, each variable ended by NUL.
_LOGIN = f'{_PROFILE} for __name in $(compgen -e); do printf "%s=%s\\0" "$__name" "${{!__name}}"; done'
_OF_THE_SHELL = ("", "_", "PWD", "OLDPWD", "SHLVL")
_PLAIN_SH = f"read -r _ <&{_GO} || exit 0; exec {_GO}<&-; set -eu; . /dev/fd/{_SCRIPT}"
_ENVIRONMENT = {
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/sh",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
_NAMESPACES = {
    "user": linux.CLONE_NEWUSER,
    "mnt": linux.CLONE_NEWNS,
    "pid": linux.CLONE_NEWPID,
    "net": linux.CLONE_NEWNET,
    "uts": linux.CLONE_NEWUTS,
    "ipc": linux.CLONE_NEWIPC,
    "cgroup": linux.CLONE_NEWCGROUP,
}


def main(control: socket.socket, leader: int, leader_fd: int, limits: list[str], tmpfs_size: int) -> NoReturn:
    """Enter the node of `leader` and serve; to be called in a fresh fork of init, which reaps it."""
    try:
        # Opened outside: what a node mounts over its /proc changes nothing.
        status = os.open(f"/proc/{leader}/status", os.O_RDONLY | os.O_CLOEXEC)
        _enter(leader, leader_fd, limits, tmpfs_size)
        if os.fork():
            os._exit(0)
        _become_root()
        linux.limit_capabilities(linux.bounding_set(status))
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (control.detach(), status)]
        kept, status = (os.dup2(fd, 3 + index, inheritable=False) for index, fd in enumerate(high))
        control = socket.socket(fileno=kept)
        os.closerange(5, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        os.umask(0o022)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        Agent(control, status).serve()
    except BaseException:  # noqa: BLE001 (told, and the process ends)
        # The first request gets it as its answer: there is no other way out of a node.
        wire.send(control, {"failed": f"the agent failed: {traceback.format_exc()}"})
    finally:
        os._exit(1)


def _enter(leader: int, leader_fd: int, limits: list[str], tmpfs_size: int) -> None:
    for directory in limits:
        with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")
    flags = 0
    for name, flag in _NAMESPACES.items():
        if os.stat(f"/proc/self/ns/{name}").st_ino != os.stat(f"/proc/{leader}/ns/{name}").st_ino:
            flags |= flag
    with open(f"/proc/{leader}/mountinfo", encoding="utf-8", errors="replace") as file:
        mounts = [line.split() for line in file]
    # The node's own user namespace may not change the mounts that nspawn made for it.
    linux.setns(leader_fd, linux.CLONE_NEWNS)
    _limit_tmpfs(mounts, tmpfs_size)
    linux.setns(leader_fd, flags & ~linux.CLONE_NEWNS)


def _become_root() -> None:
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _limit_tmpfs(mounts: list[list[str]], size: int) -> None:
    """Give the node's file systems in memory a limit: nspawn lets each take a share of the machine's memory."""
    for words in mounts:
        if words[4] in ("/tmp", "/run", "/dev/shm") and words[words.index("-") + 1] == "tmpfs":
            linux.resize_tmpfs(words[4], size)


class _Ends:
    """Descriptors made for a program: its own are closed in any case, `ours` where it could not be started."""

    def __init__(self) -> None:
        self.ours: list[int] = []
        self.its: list[int] = []

    def output(self) -> tuple[int, int]:
        """A pipe that the program writes to: our end, its end."""
        ours, its = os.pipe2(os.O_CLOEXEC)
        return self._kept(ours, its)

    def input(self) -> tuple[int, int]:
        """A pipe that the program reads from: our end, its end."""
        its, ours = os.pipe2(os.O_CLOEXEC)
        return self._kept(ours, its)

    def _kept(self, ours: int, its: int) -> tuple[int, int]:
        self.ours.append(ours)
        self.its.append(its)
        return ours, its

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        wire.close_all(self.its if kind is None else [*self.its, *self.ours])


class _Prepared:
    """A shell that waits for its script; `inputs` holds its stdin where it has one."""

    def __init__(
        self, pid: int, profile: object, *, go: int, script: int, outputs: list[int], inputs: list[int]
    ) -> None:
        self.pid = pid
        self.profile = profile
        self.go = go
        self.script = script
        self.outputs = outputs
        self.inputs = inputs

    def close(self) -> None:
        """Let the shell go: it ends at the end of its pipe."""
        wire.close_all([self.go, self.script, *self.outputs, *self.inputs])


class Agent:
    """The loop in the node: requests from the control socket, ends of commands."""

    def __init__(self, control: socket.socket, leader_status: int) -> None:
        self._control = control
        self._leader_status = leader_status
        self._limited = False
        self._login: tuple[object, dict[str, str]] = (None, {})
        self._statuses: dict[int, int] = {}
        self._spare: _Prepared | None = None
        self._begin: _Prepared | None = None
        self._wants_spare = False
        wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        self._wakeup = wakeup_read

    def serve(self) -> None:
        """Answer until the control socket is closed or the node ends."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            events = poll.poll(_COMMAND_IS_SHORT if self._wants_spare else None)
            if not events:
                self._renew_spare()
            for fd, _event in events:
                if fd == self._wakeup:
                    self._reap()
                elif (received := wire.receive(self._control)) is None:
                    return
                else:
                    self._answer(*received)

    def _answer(self, request: dict[str, Any], fds: list[int]) -> None:
        if not self._limited:
            # nspawn may have dropped capabilities since this process entered: PID 1 runs by now.
            linux.limit_capabilities(linux.bounding_set(self._leader_status))
            self._limited = True
        action: Callable[..., tuple[dict[str, Any], list[int]]] = getattr(self, f"_op_{request.pop('op')}")
        reply: dict[str, Any]
        out: list[int] = []
        try:
            reply, out = action(**request)
        except OSError as error:
            reply = {"errno": error.errno or errno.EIO, "problem": error.strerror or str(error)}
        wire.close_all(fds)
        wire.send(self._control, reply, out)
        wire.close_all(out)
        # The caller gets ready for the outputs while the shell begins: waking the shell first would put it in the
        # way of the answer.
        begin, self._begin = self._begin, None
        if begin is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody killed it: its exit status says so
                os.write(begin.go, b"\n")
            os.close(begin.go)
        self._wants_spare = self._wants_spare or "command" in reply

    def _renew_spare(self) -> None:
        """Make a shell ready for the next command, when nobody waits for this process."""
        self._wants_spare = False
        if self._spare is None:
            # A node may have no process to spare: the next command starts its own, or says why there is none.
            with contextlib.suppress(OSError):
                self._spare = self._prepare(None)

    def _reap(self) -> None:
        os.read(self._wakeup, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if self._spare is not None and self._spare.pid == pid:
                self._spare.close()
                self._spare = None
            channel = self._statuses.pop(pid, None)
            if channel is not None:
                code = os.waitstatus_to_exitcode(status)
                # As a shell says it: a signal is 128 and its number.
                with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                    os.write(channel, struct.pack("i", code if code >= 0 else 128 - code))
                os.close(channel)
                self._renew_spare()

    def _op_spawn(
        self, script: str, user: dict[str, Any] | None, stdin: bool
    ) -> tuple[dict[str, Any], list[int]]:
        """Run a script; descriptors: stdout, stderr, exit status (an int), and stdin where asked for."""
        plain = user is None and not stdin
        shell = (self._take_spare() if plain else None) or self._prepare(user, stdin=stdin)
        try:
            status_read, status_write = os.pipe2(os.O_CLOEXEC)
        except OSError:
            shell.close()
            raise
        _write_all(shell.script, script.encode("utf-8", "surrogateescape"))
        os.close(shell.script)
        self._statuses[shell.pid] = status_write
        self._begin = shell
        return {"command": shell.pid}, [*shell.outputs, status_read, *shell.inputs]

    def _op_terminal(
        self, argv: list[str], user: dict[str, Any] | None, size: list[int], term: str
    ) -> tuple[dict[str, Any], list[int]]:
        """Run a program on a terminal of the node's own; descriptors: the master, the exit status."""

        def terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        with _Ends() as ends:
            master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            ends.ours.append(master)
            fcntl.ioctl(master, 0x40045431, struct.pack("i", 0))  # TIOCSPTLCK, ioctl_tty(2)
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            slave = fcntl.ioctl(master, 0x5441, os.O_RDWR | os.O_NOCTTY)  # TIOCGPTPEER
            ends.its.append(slave)
            status_read, status_write = os.pipe2(os.O_CLOEXEC)
            ends.ours += [status_read, status_write]
            streams = {0: slave, 1: slave, 2: slave}
            pid = self._fork(argv, {**_environment(user), "TERM": term}, streams, user, terminal)
        self._statuses[pid] = status_write
        return {"command": pid}, [master, status_read]

    def _op_kill(self, command: int, number: int) -> tuple[dict[str, Any], list[int]]:
        """Signal a command and what it started in its session; nothing where it has ended."""
        if command in self._statuses:
            os.killpg(command, number)
        return {}, []

    def _op_open(self, path: str, flags: int, mode: int) -> tuple[dict[str, Any], list[int]]:
        # Links in /proc/PID that lead out of the node (exe, fd) are not followed; pipes and devices do not block.
        extra = os.O_NONBLOCK | os.O_NOCTTY
        fd = linux.openat2(-100, path, flags | extra, mode, resolve=linux.RESOLVE_NO_MAGICLINKS)
        kind = os.fstat(fd).st_mode
        if not stat.S_ISREG(kind) and not flags & os.O_PATH:
            os.close(fd)
            code = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
            raise OSError(code, "is a directory" if stat.S_ISDIR(kind) else "is no regular file", path)
        return {}, [fd]

    def _op_stat(self, path: str, follow: bool) -> tuple[dict[str, Any], list[int]]:
        flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
        fd = linux.openat2(-100, path, flags, resolve=linux.RESOLVE_NO_MAGICLINKS)
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        return {
            "mode": found.st_mode,
            "size": found.st_size,
            "mtime": found.st_mtime,
            "uid": found.st_uid,
            "gid": found.st_gid,
        }, []

    def _op_list(self, path: str) -> tuple[dict[str, Any], list[int]]:
        fd = linux.openat2(-100, path, os.O_RDONLY | os.O_DIRECTORY, resolve=linux.RESOLVE_NO_MAGICLINKS)
        try:
            return {"names": sorted(os.listdir(fd))}, []
        finally:
            os.close(fd)

    def _op_mkdir(self, path: str, mode: int, parents: bool) -> tuple[dict[str, Any], list[int]]:
        if parents:
            os.makedirs(path, mode, exist_ok=True)
        else:
            os.mkdir(path, mode)
        return {}, []

    def _op_symlink(self, target: str, path: str) -> tuple[dict[str, Any], list[int]]:
        os.symlink(target, path)
        return {}, []

    def _op_readlink(self, path: str) -> tuple[dict[str, Any], list[int]]:
        return {"target": os.readlink(path)}, []

    def _op_unlink(self, path: str) -> tuple[dict[str, Any], list[int]]:
        os.unlink(path)
        return {}, []

    def _op_chmod(self, path: str, mode: int) -> tuple[dict[str, Any], list[int]]:
        os.chmod(path, mode)
        return {}, []

    def _op_connect(
        self, family: int, kind: int, address: str, port: int
    ) -> tuple[dict[str, Any], list[int]]:
        """A socket on its way to be connected: the caller waits for it, so that nobody else has to."""
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with sock:
            result = sock.connect_ex(address if family == socket.AF_UNIX else (address, port))
            if result not in (0, errno.EINPROGRESS):
                raise OSError(result, os.strerror(result))
            return {"connected": result == 0}, [os.dup(sock.fileno())]

    def _op_watch(self, path: str) -> tuple[dict[str, Any], list[int]]:
        """An inotify descriptor that speaks up when something changes on the way to a path that may not exist."""
        directory = os.path.dirname(path)
        while not os.path.isdir(directory):
            directory = os.path.dirname(directory)
        fd = linux.inotify([directory])
        return {"exists": os.path.exists(path)}, [fd]

    def _login_environment(self, profile: object) -> dict[str, str]:
        """What /etc/profile exports for root, as of its present state."""
        if self._login[0] != profile:
            bash = _bash()
            exported = _output([bash, "-c", _LOGIN], _ENVIRONMENT) if bash else b""
            pairs = (pair.partition("=") for pair in exported.decode("utf-8", "surrogateescape").split("\0"))
            found = {name: value for name, _, value in pairs if name not in _OF_THE_SHELL}
            self._login = (profile, found or _ENVIRONMENT)
        return self._login[1]

    def _take_spare(self) -> _Prepared | None:
        spare, self._spare = self._spare, None
        if spare is not None and spare.profile != _profile():
            spare.close()
            return None
        return spare

    def _prepare(self, user: dict[str, Any] | None, *, stdin: bool = False) -> _Prepared:
        """Start a shell that waits for its script. Pipes made outside the node could not be opened by name in it."""
        profile = _profile()
        bash = _bash()
        script_text = _BASH if bash else _PLAIN_SH
        if user is not None or not bash:
            script_text = _PROFILE + script_text  # it may say something else to another user
        argv = [bash or "/bin/sh", "-c", script_text]
        environment = self._login_environment(profile) if user is None else _environment(user)
        with _Ends() as ends:
            stdout, its_stdout = ends.output()
            stderr, its_stderr = ends.output()
            go, its_go = ends.input()
            script = os.memfd_create("script", os.MFD_CLOEXEC)
            ends.ours.append(script)
            # A descriptor of its own: with a shared offset the shell would begin to read at the end.
            its_script = os.open(f"/proc/self/fd/{script}", os.O_RDONLY | os.O_CLOEXEC)
            ends.its.append(its_script)
            inputs = []
            if stdin:
                given, its_stdin = ends.input()
                inputs = [given]
            else:
                its_stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
                ends.its.append(its_stdin)
            if user is not None:
                for fd in (its_stdout, its_stderr):
                    os.fchown(fd, user["uid"], user["gid"])  # so that `> /dev/stderr` works
            wanted = {0: its_stdin, 1: its_stdout, 2: its_stderr, _GO: its_go, _SCRIPT: its_script}
            pid = self._start(argv, environment, wanted, user)
        return _Prepared(pid, profile, go=go, script=script, outputs=[stdout, stderr], inputs=inputs)

    def _start(
        self, argv: list[str], environment: dict[str, str], fds: dict[int, int], user: dict[str, Any] | None
    ) -> int:
        if user is not None:
            return self._fork(argv, environment, fds, user, None)
        # Clear of the numbers that are wanted, or one dup2 would overwrite another's source.
        with _Ends() as ends:
            for fd in fds.values():
                ends.its.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10))
            return os.posix_spawn(
                argv[0],
                argv,
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, *pair) for pair in zip(ends.its, fds, strict=True)],
                setsid=True,
                setsigdef=[signal.SIGCHLD, signal.SIGPIPE],
            )

    def _fork(
        self,
        argv: list[str],
        environment: dict[str, str],
        fds: dict[int, int],
        user: dict[str, Any] | None,
        then: Callable[[], None] | None,
    ) -> int:
        """The long way, where the program is to be somebody else's or to have a terminal."""
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.set_wakeup_fd(-1)
            for default in (signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(default, signal.SIG_DFL)
            os.setsid()
            moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for number, fd in fds.items()}
            for number, fd in moved.items():
                os.dup2(fd, number)
            if then is not None:
                then()
            if user is not None:
                os.setgroups(user["groups"])
                os.setresgid(user["gid"], user["gid"], user["gid"])
                os.setresuid(user["uid"], user["uid"], user["uid"])
            os.execve(argv[0], argv, environment)
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)


def _bash() -> str | None:
    return next((path for path in _SHELLS if os.path.exists(path)), None)


def _output(argv: list[str], environment: dict[str, str]) -> bytes:
    """What a program prints; to be called only for what ends by itself at once."""
    with _Ends() as ends:
        ours, its = ends.output()
        actions = [(os.POSIX_SPAWN_DUP2, its, 1)]
        os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsigdef=[signal.SIGCHLD])
    with open(ours, "rb") as output:
        return output.read()


def _environment(user: dict[str, Any] | None) -> dict[str, str]:
    if user is None:
        return _ENVIRONMENT
    names = {"HOME": user["home"], "USER": user["name"], "LOGNAME": user["name"], "SHELL": user["shell"]}
    return {**_ENVIRONMENT, **names}


def _profile() -> object:
    """What tells one state of the login environment from another; links are followed, as the shell does."""
    paths = ("/etc/profile", "/etc/bash.bashrc", "/etc/environment", "/etc/set-environment")
    found = [_signature(path) for path in paths]
    try:
        found += [_signature(entry.path) for entry in os.scandir("/etc/profile.d")]
    except OSError:
        found.append(None)
    return found


def _signature(path: str) -> tuple[str, int, int, int] | None:
    try:
        there = os.stat(path)
    except OSError:
        return None
    return path, there.st_ino, there.st_mtime_ns, there.st_size


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
