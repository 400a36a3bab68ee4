"""One node in the sandbox: its systemd-nspawn, over all its boots.

A node's words are events to the test process: `leader` (with the leader's pidfd and the agent's socket), `notify` and
`exit`. sd_notify(3), systemd-nspawn(1): --notify-ready, --keep-unit; exit code 133 asks for a reboot.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_nspawn.inside import agent, linux

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_nspawn import wire
    from pytest_nspawn.inside.init import Init
    from pytest_nspawn.inside.wires import Answered, Client

REBOOT = 133
_CGROUP = "/sys/fs/cgroup"
_CPU_PERIOD = 100_000
_ROWS, _COLUMNS = 50, 200  # systemd shortens its status lines to the terminal's width


class Node:
    """Starts and restarts systemd-nspawn for one node, watches it, and forks its agents."""

    def __init__(self, init: Init, message: wire.Message, home: str, wires: Client) -> None:
        self._init = init
        self._id: int = message["node"]
        self._home = home
        self._wires = wires
        self._argv: list[str] = message["argv"]
        self._environment: dict[str, str] = message["environment"]
        self._links: list[dict[str, object]] = message["links"]
        self._limits: dict[str, float] = message["limits"]
        self._tmpfs_size: int = message["tmpfs_size"]
        self._owner: int = message["owner"]
        self._boot = 0
        self._pid = 0
        self._leader = 0
        self._leader_fd = -1
        self._status: int | None = None
        self._stale: list[str] = []
        self._when_gone: Callable[[], None] | None = None
        self._changed: dict[str, dict[str, Any]] = {}
        self.console, self._terminal = os.openpty()
        fcntl.ioctl(self.console, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        os.makedirs(home, mode=0o755)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notify.bind(f"{home}/notify")
        init.watch(self._notify.fileno(), self._notified)

    @property
    def _cgroup(self) -> str:
        return f"{_CGROUP}/node-{self._id}-{self._boot}"

    def start(self) -> None:
        """Start systemd-nspawn in a cgroup of its own; nothing where it runs."""
        if self._pid:
            return
        self._boot += 1
        self._status = None
        # A fresh directory a boot: systemd dies on a stale init.scope of other owners.
        os.mkdir(self._cgroup)
        self._limit()
        pid = _fork_into(self._cgroup)
        if pid == 0:
            self._exec()
        self._pid = pid
        self._init.child(pid, self._exited)

    def signal(self, number: int) -> None:
        """Send a signal to systemd-nspawn."""
        if self._pid:
            os.kill(self._pid, number)

    def agent(self) -> socket.socket:
        """Another agent for the boot that runs: the first may have been killed from inside the node."""
        if not self._leader:
            raise ProcessLookupError("the node is not running")
        return self._fork_agent()

    def kill(self) -> None:
        """Power cut: kill every process of the node at once."""
        if self._pid:
            with open(f"{self._cgroup}/cgroup.kill", "w", encoding="ascii") as file:
                file.write("1")
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)  # it may not have entered its group yet

    def freeze(self, frozen: bool) -> None:
        """Stop every process of the node where it is, or let them run on (cgroup-v2, cgroup.freeze)."""
        if not self._pid:
            raise ProcessLookupError("the node is not running")
        with open(f"{self._cgroup}/cgroup.freeze", "w", encoding="ascii") as file:
            file.write("1" if frozen else "0")

    def change_links(self, change: dict[str, dict[str, Any]], answered: Answered) -> None:
        """Change links by the name of their end outside the node; they stay so over its restarts."""

        def done(problem: str | None, number: int | None, fds: list[int]) -> None:
            if problem is None:
                for name, how in change.items():
                    self._changed[name] = self._changed.get(name, {}) | how
            answered(problem, number, fds)

        self._wires.ask({"change": change}, done)

    def remove(self, gone: Callable[[], None]) -> None:
        """Kill what runs, release root and console; calls `gone` when nothing is left."""
        self._when_gone = gone
        self.kill()
        self._settle()

    def _exec(self) -> NoReturn:
        try:
            self._init.in_child()
            os.setsid()
            for fd in (0, 1, 2):
                os.dup2(self._terminal, fd)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            enter_cgroups(self._limit_directories())
            _hide_other_boots()
            environment = {
                "PATH": os.environ.get("PATH", os.defpath),
                "LANG": "C.UTF-8",
                "NOTIFY_SOCKET": f"{self._home}/notify",
                **self._environment,
            }
            os.execvpe(self._argv[0], self._argv, environment)
        except OSError as error:
            os.write(2, f"{self._argv[0]}: {error}\r\n".encode())
        finally:
            os._exit(127)

    def _limit_directories(self) -> list[str]:
        return [
            f"/proc/self/fd/{self._init.v1[name]}/node-{self._id}"
            for name in self._limits
            if self._init.limits.get(name) == "v1"
        ]

    def _limit(self) -> None:
        for name, value in self._limits.items():
            if self._init.limits[name] == "v1":
                home = self._init.v1[name]
                with contextlib.suppress(FileExistsError):
                    os.mkdir(f"node-{self._id}", dir_fd=home)
                files = {
                    "memory": {"memory.limit_in_bytes": f"{value:.0f}"},
                    "pids": {"pids.max": f"{value:.0f}"},
                    "cpu": {
                        "cpu.cfs_period_us": str(_CPU_PERIOD),
                        "cpu.cfs_quota_us": f"{value * _CPU_PERIOD:.0f}",
                    },
                }[name]
                directory = f"/proc/self/fd/{home}/node-{self._id}"
            else:
                directory = self._cgroup
                files = {
                    "memory": {"memory.max": f"{value:.0f}"},
                    "pids": {"pids.max": f"{value:.0f}"},
                    "cpu": {"cpu.max": f"{value * _CPU_PERIOD:.0f} {_CPU_PERIOD}"},
                }[name]
            for file, text in files.items():
                with open(f"{directory}/{file}", "w", encoding="ascii") as control:
                    control.write(text)

    def _notified(self) -> None:
        """Read the node's notify socket for as long as it lives: a full one blocks the node's PID 1."""
        while True:
            try:
                data, ancillary, _flags, _address = self._notify.recvmsg(
                    65536, socket.CMSG_SPACE(16 * 4), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    for (fd,) in struct.iter_unpack("i", content[: len(content) // 4 * 4]):
                        os.close(fd)
            lines = data.decode(errors="replace").splitlines()
            for line in lines:
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    self._led_by(int(line.partition("=")[2]))
            self._tell("notify", lines=lines)

    def _led_by(self, leader: int) -> None:
        try:
            self._leader_fd = os.pidfd_open(leader)
            self._leader = leader
            self._init.watch(self._leader_fd, self._leader_ended)
            if self._links:
                links = [
                    {**link, "up": self._changed.get(str(link["host_ifname"]), {}).get("up", True)}
                    for link in self._links
                ]
                self._wires.ask({"links": links, "leader": leader}, self._linked)
                emulated = {name: how for name, how in self._changed.items() if how.get("netem")}
                if emulated:
                    self._wires.ask({"change": emulated}, self._linked)
            with self._fork_agent() as channel:
                self._tell("leader", [self._leader_fd, channel.fileno()])
        except OSError as error:
            # The node may have ended already: its exit tells the rest.
            self._tell("problem", problem=f"cannot enter the node: {error}")

    def _linked(self, problem: str | None, _number: int | None, _fds: list[int]) -> None:
        if problem is not None:
            self._tell("problem", problem=f"cannot make the node's links: {problem}")

    def _fork_agent(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            group = f"{self._cgroup}/payload/pytest-nspawn"
            with contextlib.suppress(FileExistsError):
                os.mkdir(group)
            if _fork_into(group) == 0:
                self._init.in_child()
                limits = self._limit_directories()
                agent.main(theirs, self._leader, self._leader_fd, limits, self._tmpfs_size)
        return ours

    def _leader_ended(self) -> None:
        self._init.unwatch(self._leader_fd)
        os.close(self._leader_fd)
        self._leader, self._leader_fd = 0, -1
        self._settle()

    def _exited(self, status: int) -> None:
        self._notified()
        self._status = status
        self.kill()  # nspawn may have been killed and its node be alive
        self._pid = 0
        self._settle()

    def _settle(self) -> None:
        """Once nspawn and the node's PID namespace are both gone: say so, start again, or remove."""
        if self._pid or self._leader:
            return
        if self._status is not None:
            status, self._status = self._status, None
            self._stale.append(self._cgroup)
            again = status == REBOOT and self._when_gone is None
            self._tell("exit", status=status, again=again)
            if again:
                self._start_again()
                return
        self._stale = [path for path in self._stale if not _removed(path)]
        if self._when_gone is not None:
            gone, self._when_gone = self._when_gone, None
            self._release()
            gone()

    def _start_again(self) -> None:
        try:
            self.start()
        except OSError as error:
            self._tell("exit", status=REBOOT, again=False, problem=f"cannot start the node again: {error}")

    def _release(self) -> None:
        self._init.unwatch(self._notify.fileno())
        self._notify.close()
        os.close(self.console)
        os.close(self._terminal)
        self._init.roots.forget_shift(self._owner)
        for name in self._limits:
            if self._init.limits[name] == "v1":
                with contextlib.suppress(OSError):  # the warden removes what is still in use
                    os.rmdir(f"node-{self._id}", dir_fd=self._init.v1[name])
        unmount_below(self._home)
        remove_directories(self._home)

    def _tell(self, event: str, fds: list[int] | None = None, **fields: object) -> None:
        self._init.tell({"event": event, "node": self._id, "boot": self._boot, **fields}, fds or [])


def _fork_into(cgroup: str) -> int:
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return linux.fork_into(directory)
    finally:
        os.close(directory)


def _hide_other_boots() -> None:
    """Let systemd-nspawn keep what it keeps of a machine in mounts that end with it.

    When killed, newer ones leave a mount at /run/systemd/nspawn/unix-export/NAME, and refuse to start a NAME that has one.
    """
    linux.unshare(linux.CLONE_NEWNS)
    os.makedirs("/run/systemd/nspawn", exist_ok=True)
    linux.mount("tmpfs", "/run/systemd/nspawn", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755")


def enter_cgroups(limits: list[str]) -> None:
    """Move this process into the v1 cgroups that limit the node."""
    for directory in limits:
        with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")


def _removed(cgroup: str) -> bool:
    """Remove an ended boot's cgroup; the kernel may need a moment, then the next one tries again."""
    try:
        for directory, _directories, _files in os.walk(cgroup, topdown=False):
            os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def unmount_below(path: str) -> None:
    """Take every mount at and below a path out of the tree, innermost first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split()[4] for line in file]
    for point in reversed(points):
        if point == path or point.startswith(f"{path}/"):
            linux.umount(point)


def remove_directories(path: str) -> None:
    """Remove a tree of the sandbox's own: what is left are mount points, links and the notify socket."""
    for directory, directories, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(directory, name))
        for name in directories:
            entry = os.path.join(directory, name)
            if os.path.islink(entry):
                os.unlink(entry)
            else:
                os.rmdir(entry)
    os.rmdir(path)
