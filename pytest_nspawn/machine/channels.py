"""What a machine needs of its node: four channels, so that it can be tested without one.

`Container`, `Shell`, `Bus` and `Console` are the real ones. A boot's shell and bus are asked for anew at each use: a
node that restarted is another one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pytest_nspawn.bus import UnitState
from pytest_nspawn.model import CommandResult
from pytest_nspawn.shell import FileStatus, RemoteProcess
from pytest_nspawn.timing import Deadline


class ShellChannel(Protocol):
    """Commands, files and sockets of one boot. Raises NotRunningError once that has ended."""

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
        """Run a command to its end; 124 is the exit code of one that outlives `timeout` seconds.

        `meanwhile` is called again and again; what it raises ends the command.
        """

    def popen(
        self,
        command: str | Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bool = False,
    ) -> RemoteProcess:
        """Start a command that runs on."""

    def interact(self, argv: Sequence[str] | None = None) -> int:
        """Give the test process's terminal to a login shell in the node; gives its exit code."""

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        """A descriptor of a regular file of the node."""

    def stat(self, path: str, *, follow: bool = True) -> FileStatus:
        """stat(2), or lstat(2)."""

    def exists(self, path: str) -> bool:
        """Whether a path leads to something."""

    def listdir(self, path: str) -> list[str]:
        """The names in a directory."""

    def mkdir(self, path: str, mode: int = 0o755, *, parents: bool = True) -> None:
        """Make a directory; one that is there is well."""

    def readlink(self, path: str) -> str:
        """Where a symbolic link leads."""

    def chmod(self, path: str, mode: int) -> None:
        """Change a file's mode."""

    def watch(self, path: str) -> tuple[bool, int]:
        """Whether a path exists, and a descriptor that is readable when something changed near it."""

    def connect_tcp(self, port: int, addr: str = "localhost", timeout: float = 10.0) -> socket.socket:
        """A TCP socket, connected from inside the node."""

    def connect_unix(
        self, path: str, kind: socket.SocketKind = socket.SOCK_STREAM, timeout: float = 10.0
    ) -> socket.socket:
        """A socket, connected to one in the node."""


class BusChannel(Protocol):
    """The systemd of one boot."""

    def unit_state(self, unit: str) -> UnitState:
        """A unit's state; one that does not exist is `not-found`."""

    def get_property(self, unit: str, name: str) -> str:
        """A property as `systemctl show` prints it. Raises LookupError where only systemctl can tell."""

    def list_units(self, *, states: Sequence[str] = (), patterns: Sequence[str] = ()) -> list[UnitState]:
        """The loaded units."""

    def start_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        """Start a unit and wait for the job; gives its result, `done` where all went well."""

    def stop_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        """Stop a unit likewise."""

    def restart_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        """Restart a unit likewise."""

    def reload_unit(self, unit: str, mode: str = "replace", *, deadline: Deadline | None = None) -> str:
        """Let a unit reload its configuration likewise."""

    def wait_for_unit(self, unit: str, until: Callable[[UnitState], bool], deadline: Deadline) -> UnitState:
        """Wait until a unit's state is as wanted. Raises TimeoutExceeded, and what `until` raises."""


class ConsoleChannel(Protocol):
    """The node's console, the same over all boots."""

    def log(self) -> str:
        """All that it printed."""

    def tail(self, limit: int = 1 << 16) -> str:
        """The last that it printed, without escape sequences."""

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with each line from now on; what is returned ends that."""

    def wait_for(self, regex: str, deadline: Deadline) -> str:
        """Wait until what it printed matches. Raises TimeoutExceeded."""

    def send(self, text: str) -> None:
        """Type on it."""

    def interact(self) -> None:
        """Give the test process's terminal to it."""


class ContainerChannel(Protocol):
    """The node itself."""

    @property
    def name(self) -> str:
        """The node's name."""

    @property
    def running(self) -> bool:
        """Whether it runs, ready or not."""

    @property
    def ready(self) -> bool:
        """Whether the boot that runs is ready for commands."""

    @property
    def boots(self) -> int:
        """How many times it was booted."""

    @property
    def leader_pid(self) -> int:
        """Its PID 1 as this process sees it."""

    @property
    def console(self) -> ConsoleChannel:
        """Its console."""

    def start(self) -> None:
        """Boot, without waiting; nothing where it runs."""

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until it can run commands. Raises BootError, NotRunningError."""

    def wait_stopped(self, timeout: float | None = None) -> int:
        """Wait until it has ended. Raises TimeoutError."""

    def power_off(self, timeout: float | None = None) -> None:
        """Shut down cleanly. Raises TimeoutError."""

    def kill(self) -> None:
        """Cut the power."""

    def reboot(self, timeout: float | None = None) -> None:
        """Reboot, and wait until it is ready again."""

    def freeze(self, frozen: bool) -> None:
        """Stop every process of the node where it is, or let them run on."""

    def impair(self, ifnames: Sequence[str], **how: object) -> None:
        """Change the links of these interfaces: `up`, and what delays or loses packets. Raises HostError."""

    def shell(self) -> ShellChannel:
        """The shell of the boot that runs, once it is ready."""

    def bus(self) -> BusChannel:
        """The systemd of the boot that runs, once it is ready."""
