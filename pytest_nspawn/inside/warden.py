"""The warden: starts the sandbox's init and outlives it, to kill what is left and to remove the cgroups.

It stays outside the sandbox's namespaces, in a session of its own, deaf to INT, TERM and HUP. It ends the sandbox when
the pipe from the test process reaches its end, when that process is gone (a fork of it may hold the pipe open), or when
init is gone. Kernel documents: cgroup-v2 (cgroup.kill, cgroup.events), user_namespaces(7), pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_nspawn import wire
from pytest_nspawn.inside import init, linux

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWCGROUP
)


def main() -> NoReturn:
    """Run as `python -c ... CONFIG`; the configuration is what `sandbox.py` wrote."""
    config = json.loads(sys.argv[1])
    life, control = config["life"], socket.socket(fileno=config["control"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.chdir("/")
    try:
        owner = os.pidfd_open(config["owner"])
        cgroups = Cgroups(config)
    except OSError as error:
        _fail(control, error)
    try:
        cgroups.create()
        init_pid, lifeline = _start_init(config, control, cgroups)
    except OSError as error:
        cgroups.remove()
        _fail(control, error)
    control.close()
    init_fd = os.pidfd_open(init_pid)
    os.write(lifeline, b"!")
    select.select([life, owner, init_fd], [], [])
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(init_fd, signal.SIGKILL)
    cgroups.remove()
    os._exit(0)


def _fail(control: socket.socket, error: OSError) -> NoReturn:
    with contextlib.suppress(OSError):  # the test process may be gone: there is nobody to tell
        wire.send(control, {"event": "failed", "operation": "start the sandbox", "problem": str(error)})
    os._exit(1)


def _start_init(config: dict[str, Any], control: socket.socket, cgroups: Cgroups) -> tuple[int, int]:
    """Start PID 1 of new namespaces; gives its PID and the pipe whose end it takes for the warden's death.

    A process between the two makes the namespaces and ends, so that the warden itself stays where it is and init
    becomes the warden's child.
    """
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    lifeline_read, lifeline_write = os.pipe()
    asks, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    between = os.fork()
    if between == 0:
        os.close(lifeline_write)
        answers.close()
        os.close(config["life"])
        _enter_namespaces(config, asks, control, cgroups, lifeline_read)
    asks.close()
    os.close(lifeline_read)
    while True:
        request = answers.recv(4096)
        if not request:
            os.waitpid(between, 0)
            raise OSError("the sandbox's init did not start")
        word, _, rest = request.decode().partition(" ")
        if word == "map":
            _map_ids(between, config["maps"])
            answers.send(b"mapped")
        elif word == "failed":
            os.waitpid(between, 0)
            raise OSError(rest)
        else:
            os.waitpid(between, 0)
            return int(rest), lifeline_write


def _enter_namespaces(
    config: dict[str, Any], asks: socket.socket, control: socket.socket, cgroups: Cgroups, lifeline: int
) -> NoReturn:
    try:
        # cgroup namespaces have their root where the process is that makes them, so enter the run's cgroup first.
        cgroups.enter()
        if config["mode"] == "user":
            linux.unshare(linux.CLONE_NEWUSER)
            asks.send(b"map")
            if asks.recv(64) != b"mapped":
                os._exit(1)
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        linux.unshare(_NAMESPACES)
        pid = os.fork()
        if pid:
            asks.send(f"init {pid}".encode())
            os._exit(0)
    except OSError as error:
        asks.send(f"failed {error}".encode())
        os._exit(1)
    asks.close()
    try:
        _become_init(config, control, cgroups, lifeline)
    except BaseException:  # noqa: BLE001 (told, and the sandbox ends)
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _become_init(config: dict[str, Any], control: socket.socket, cgroups: Cgroups, lifeline: int) -> None:
    # The death signal belongs to the parent at the time of its death: set it once the process between is gone.
    if os.read(lifeline, 1):
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        init.main(config, control, lifeline, cgroups.limits)


def _map_ids(pid: int, maps: dict[str, list[list[int]]]) -> None:
    for program, ranges in maps.items():
        words = [program, str(pid), *(str(number) for numbers in ranges for number in numbers)]
        child = os.posix_spawnp(program, words, os.environ)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            raise OSError(f"{' '.join(words)} failed with exit code {status}")


class Cgroups:
    """The run's directory in the cgroup v2 hierarchy and, for limits as root on hybrid machines, in v1 ones."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.run = os.path.join(config["cgroup"] or _clear_scope(), config["name"])
        self._v1 = {name: os.path.join(home, config["name"]) for name, home in config["v1"].items()}
        self.limits: dict[str, int] = {}

    def create(self) -> None:
        """Make the directories; `limits` then holds a descriptor a v1 controller."""
        home = os.path.dirname(self.run)
        os.mkdir(self.run)
        with open(f"{home}/cgroup.controllers", encoding="ascii") as file:
            there = [name for name in file.read().split() if name in init.CONTROLLERS]
        for name in there:
            # A home that holds processes gives out none (EBUSY): then there are no limits, and using one says so.
            with contextlib.suppress(OSError):
                _write(f"{home}/cgroup.subtree_control", f"+{name}")
        for name, path in self._v1.items():
            os.mkdir(path)
            self.limits[name] = os.open(path, os.O_DIRECTORY | os.O_CLOEXEC)

    def enter(self) -> None:
        """Move the calling process in."""
        _write(os.path.join(self.run, "cgroup.procs"), "0")

    def remove(self) -> None:
        """Kill what is left in the run's cgroup, wait until it is empty, and remove every directory."""
        with _unless_removed():
            self._kill()
        for path in (self.run, *self._v1.values()):
            with _unless_removed():
                _remove_tree(path)

    def _kill(self) -> None:
        events = os.open(os.path.join(self.run, "cgroup.events"), os.O_RDONLY | os.O_CLOEXEC)
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while b"populated 1" in os.pread(events, 256, 0):
            _write(os.path.join(self.run, "cgroup.kill"), "1")
            _reap()
            poll.poll(100)
        os.close(events)
        _reap()


@contextlib.contextmanager
def _unless_removed() -> Iterator[None]:
    """The owner is dead, so another run's sweep may remove the same control groups at this moment."""
    try:
        yield
    except OSError as error:
        # Removed before a file of it was opened, or after.
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def _clear_scope() -> str:
    """The scope that systemd-run made for this process; it moves to a leaf, so that the scope can give limits out."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = next(line[3:].strip() for line in file if line.startswith("0::"))
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    # On a hybrid machine the hierarchy is mounted somewhere else.
    top = next(words[4] for words in mounts if words[words.index("-") + 1] == "cgroup2")
    scope = f"{top}{own}"
    os.mkdir(f"{scope}/warden")
    _write(f"{scope}/warden/cgroup.procs", "0")
    return scope


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _remove_tree(path: str) -> None:
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(entry.path)
    os.rmdir(path)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
