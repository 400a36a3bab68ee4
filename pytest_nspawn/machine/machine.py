"""The `Machine` that tests hold: the verbs of the NixOS test driver, and ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pytest_nspawn import timing
from pytest_nspawn.errors import CommandFailed, UnsupportedError
from pytest_nspawn.machine.channels import ContainerChannel
from pytest_nspawn.machine.commands import Commands
from pytest_nspawn.machine.console import ConsoleVerbs
from pytest_nspawn.machine.context import LIMIT, Context, hidden, seconds_of
from pytest_nspawn.machine.copying import Copies
from pytest_nspawn.machine.faults import FaultMethods
from pytest_nspawn.machine.files import Files, NodePath
from pytest_nspawn.machine.journal import Journal
from pytest_nspawn.machine.links import Links
from pytest_nspawn.machine.ports import Ports
from pytest_nspawn.machine.power import Power
from pytest_nspawn.machine.screen import Screen, ScreenMethods
from pytest_nspawn.machine.unit_view import Units
from pytest_nspawn.machine.units import UnitVerbs
from pytest_nspawn.machine.vm_only import VmOnlyMethods
from pytest_nspawn.model import CommandResult, NetworkName
from pytest_nspawn.shell import RemoteProcess
from pytest_nspawn.timing import Seconds

__tracebackhide__ = hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOptions:
    """Where a machine has its files, and who hears of its commands.

    `on_command` is called after each command, on the thread that ran it.
    """

    tmp_dir: Path
    out_dir: Path
    on_command: Callable[[Machine, CommandResult], None] | None = None
    interfaces: Sequence[tuple[NetworkName, str]] = ()
    """The node's networks, with the name that the interface has in it."""


class Machine(FaultMethods, ScreenMethods, VmOnlyMethods):
    """One node. Times are seconds or a timedelta; a command to a node that does not run yet waits for its boot.

    Methods of the NixOS test driver have its names, arguments, defaults and results; what is ours is keyword-only or has
    a name of its own. Raises RequestedAssertionFailed where what a test asked for is false, BootError where the node
    did not boot, and NotRunningError where it does not run. Methods may be called from several threads at once.
    """

    def __init__(self, container: ContainerChannel, *, options: MachineOptions) -> None:
        self.name = container.name
        self.tmp_dir = options.tmp_dir
        self.out_dir = options.out_dir
        self.keep_machine_state = False
        self._on_command = options.on_command
        self._container = container
        self._context = context = Context(container, self._ran)
        self._commands = Commands(context)
        self._journal = Journal(context)
        self._unit_verbs = UnitVerbs(context, self._commands, self._journal)
        self._files = Files(context, self._commands)
        self._copies = Copies(context)
        self._ports = Ports(context)
        self._power = Power(context)
        self._console = ConsoleVerbs(context)
        self._screen = Screen(context, self._commands, self._ports)
        self._links = Links(context, options.interfaces)

    def __repr__(self) -> str:
        state = "ready" if self.is_up() else "booting" if self._container.running else "off"
        return f"<Machine {self.name!r} ({state})>"

    # Power

    def start(self, allow_reboot: bool = False) -> None:
        """Boot, without waiting; nothing where it runs. A reboot is always allowed."""
        self._power.start()

    def connect(self) -> None:
        """Wait until the node can run commands."""
        self._container.wait_ready()

    def shutdown(self) -> None:
        """Shut the node down and wait for that. Its root stays as a disk would; `start()` boots it again."""
        self._power.shutdown()

    def wait_for_shutdown(self, *, timeout: Seconds | None = LIMIT) -> None:
        """Wait until the node has shut down by itself. Raises TimeoutExceeded."""
        self._power.wait_stopped(timeout)

    def reboot(self) -> None:
        """Reboot and wait until commands work again. The root stays."""
        self._power.reboot()

    def crash(self) -> None:
        """Cut the power: every process of the node ends at once. The root stays."""
        self._power.crash()

    def is_up(self) -> bool:
        """Whether the node is booted and takes commands."""
        return self._container.running and self._container.ready

    def release(self) -> None:
        """Cut the power and end all that leads to the node from here. Idempotent."""
        self._ports.close()
        self._power.release()

    @property
    def leader_pid(self) -> int:
        """The node's PID 1 as this process sees it; another one after a restart."""
        return self._container.leader_pid

    # Commands

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: Seconds | None = LIMIT,
    ) -> tuple[int, str]:
        """Run a command in bash (`set -euo pipefail`, a login environment); gives exit code and stdout.

        It waits until stdout is closed: a command that detaches must redirect it. The exit code is 124 after `timeout`,
        -1 without `check_return`; without `check_output` nothing is waited for and it is -2.
        """
        return self._commands.execute(
            command, check_return=check_return, check_output=check_output, timeout=timeout
        )

    def succeed(self, *commands: str, timeout: Seconds | None = None) -> str:
        """Run commands that must succeed; gives what they wrote to stdout. Raises CommandFailed."""
        return self._commands.succeed(commands, timeout)

    def fail(self, *commands: str, timeout: Seconds | None = None) -> str:
        """Run commands that must fail; gives what they wrote to stdout. Raises CommandFailed."""
        return self._commands.fail(commands, timeout)

    def wait_until_succeeds(self, command: str, timeout: Seconds | None = LIMIT) -> str:
        """Repeat a command until it succeeds; gives its stdout. Raises TimeoutExceeded."""
        return self._commands.wait_until(command, timeout, success=True)

    def wait_until_fails(self, command: str, timeout: Seconds | None = LIMIT) -> str:
        """Repeat a command until it fails; gives its stdout. Raises TimeoutExceeded."""
        return self._commands.wait_until(command, timeout, success=False)

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = False,
        timeout: Seconds | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | bytes | None = None,
    ) -> CommandResult:
        """Run a command, as text for bash or as a list of arguments. With `check`, raises CommandFailed."""
        result = self._commands.run(
            command, timeout=seconds_of(timeout), user=user, env=env, cwd=cwd, stdin=stdin
        )
        if check and result.exit_code != 0:
            raise CommandFailed(result=result) from None
        return result

    def popen(
        self,
        command: str | Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bool = False,
    ) -> RemoteProcess:
        """Start a command that runs on; read its outputs, or it stops when they are full. `stdin` gives it a pipe."""
        return self._commands.popen(command, user=user, env=env, cwd=cwd, stdin=stdin)

    @property
    def history(self) -> list[CommandResult]:
        """The last 50 commands with the tails of their outputs, oldest first."""
        return self._context.history

    def sleep(self, secs: Seconds) -> None:
        """Wait; where there is something to wait for, a `wait_for_...` is faster and surer."""
        self._power.sleep(timing.seconds(secs))

    # Units

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Run `systemctl Q`, or `systemctl --user Q` as a user; gives exit code and stdout."""
        return self._unit_verbs.systemctl(q, user)

    def wait_for_unit(self, unit: str, user: str | None = None, timeout: Seconds | None = LIMIT) -> None:
        """Wait until a unit is active. Raises TimeoutExceeded.

        Raises RequestedAssertionFailed at once where it failed, or is inactive with no job under way.
        """
        self._unit_verbs.wait(unit, user, timeout)

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """Raise RequestedAssertionFailed where a unit is in another active state."""
        self._unit_verbs.require_state(unit, require_state)

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """All of a unit's properties, as `systemctl show` prints them."""
        return self._unit_verbs.info(unit, user)

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:  # noqa: A002 (the driver's)
        """One of a unit's properties, as `systemctl show` prints it."""
        return self._unit_verbs.prop(unit, property, user)

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """Run `systemctl start`; gives exit code and stdout."""
        return self._unit_verbs.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """Run `systemctl stop`; gives exit code and stdout."""
        return self._unit_verbs.systemctl(f"stop {jobname}", user)

    @property
    def units(self) -> Units:
        """The units as objects: `units["nginx.service"].active_state`, `.restart()`, `.journal()`."""
        return Units(self._context, self._journal)

    # Journal and console

    def journal(
        self,
        unit: str | None = None,
        since: str | datetime | timedelta | None = None,
        grep: str | None = None,
    ) -> str:
        """The journal of all boots as text; `since` also as text for journalctl or as a span that ends now.

        `grep` is a Python regular expression, searched in the messages.
        """
        return self._journal.read(unit=unit, since=since, grep=grep)

    def wait_for_journal(self, regex: str, unit: str | None = None, timeout: Seconds | None = LIMIT) -> str:
        """Wait for a message of this boot, old or new, that matches; gives the message. Raises TimeoutExceeded."""
        return self._journal.wait_for(regex, unit, timeout)

    def get_console_log(self) -> str:
        """All that the node printed on its console, over all boots."""
        return self._container.console.log()

    def wait_for_console_text(self, regex: str, timeout: Seconds | None = None) -> None:
        """Wait for a text on the console, in what no earlier call has consumed. Raises TimeoutExceeded."""
        self._console.wait_for(regex, timeout)

    def watch_console(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with each line that the node prints from now on; what is returned ends that.

        It is called on the thread that reads the console, which a slow one holds up.
        """
        return self._container.console.subscribe(callback)

    def ssh_backdoor_command(self) -> str:
        """A command for another terminal of this machine (as root) that gives a shell in the node while it runs."""
        return f"nsenter --target {self.leader_pid} --all -- /bin/sh -c 'cd /; exec /bin/sh -l'"

    def send_console(self, chars: str) -> None:
        """Type on the console."""
        self._container.console.send(chars)

    def console_interact(self) -> None:
        """Give the console the test process's terminal (pytest -s), until ^] is typed three times."""
        self._container.console.interact()

    def shell_interact(self, address: str | None = None) -> None:
        """Give a login shell in the node the test process's terminal (pytest -s), until the shell ends."""
        if address is not None:
            raise UnsupportedError(
                node=self.name,
                method="shell_interact",
                reason="an address is where QEMU would offer the shell",
                way_out="leave it out: the shell is on the terminal of pytest -s",
            )
        self._context.shell().interact()

    # Files

    def wait_for_file(self, filename: NodePath, timeout: Seconds | None = LIMIT) -> None:
        """Wait until a file exists; a name may have what a shell expands. Raises TimeoutExceeded."""
        self._files.wait_for(filename, timeout)

    def exists(self, path: NodePath) -> bool:
        """Whether a path leads to something in the node."""
        return self._files.exists(path)

    def read_bytes(self, path: NodePath) -> bytes:
        """The content of a regular file. Raises OSError as open() does."""
        return self._files.read(path)

    def read_text(self, path: NodePath, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content of a regular file as text. Raises OSError, UnicodeDecodeError."""
        return self._files.read(path).decode(encoding, errors)

    def write_bytes(self, path: NodePath, data: bytes, *, mode: int | None = None) -> int:
        """Write a regular file, as root; gives the number of bytes. Raises OSError as open() does."""
        return self._files.write(path, data, mode)

    def write_text(
        self, path: NodePath, text: str, encoding: str = "utf-8", *, mode: int | None = None
    ) -> int:
        """Write a regular file likewise; gives the number of characters."""
        self._files.write(path, text.encode(encoding), mode)
        return len(text)

    def copy_from_host(self, source: str | os.PathLike[str], target: NodePath) -> None:
        """Copy a file or directory into the node, with modes; into the target where that is a directory."""
        self._copies.into(source, target)

    def copy_from_host_via_shell(self, source: str | os.PathLike[str], target: NodePath) -> None:
        """Copy a file to that very name in the node."""
        self._copies.into_file(source, target)

    def copy_from_machine(self, source: NodePath, target_dir: str | os.PathLike[str] = "") -> None:
        """Copy a file or directory of the node, with modes and links, to a directory below `out_dir`."""
        self._copies.out(source, self.out_dir, target_dir)

    def copy_from_vm(self, source: NodePath, target_dir: str | os.PathLike[str] = "") -> None:
        """The old name of `copy_from_machine`."""
        self.copy_from_machine(source, target_dir)

    # Network

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: Seconds | None = LIMIT) -> None:
        """Wait until somebody listens on a TCP port, seen from inside the node. Raises TimeoutExceeded."""
        self._ports.wait_open(port, addr, timeout)

    def wait_for_closed_port(
        self, port: int, addr: str = "localhost", timeout: Seconds | None = LIMIT
    ) -> None:
        """Wait until nobody listens on a TCP port any more. Raises TimeoutExceeded."""
        self._ports.wait_closed(port, addr, timeout)

    def wait_for_open_unix_socket(
        self, addr: NodePath, is_datagram: bool = False, timeout: Seconds | None = LIMIT
    ) -> None:
        """Wait until somebody listens on a Unix socket. Raises TimeoutExceeded."""
        self._ports.wait_unix(addr, timeout, datagram=is_datagram)

    def connect_tcp(self, port: int, addr: str = "localhost") -> socket.socket:
        """A socket of this process, connected from inside the node's network. Raises OSError as connect() does."""
        return self._ports.connect(port, addr)

    def forward_port(self, host_port: int = 8080, guest_port: int = 80, *, addr: str = "localhost") -> int:
        """Let a port of this machine (127.0.0.1) lead to a port of the node; 0 chooses one. Gives the port.

        It stays as long as the node does, over its restarts. Raises ConfigError where the port is in use.
        """
        return self._ports.forward(host_port, guest_port, addr)

    # Log and state

    def log(self, msg: str) -> None:
        """Log a message about this node."""
        self._context.log.info("%s", msg)

    def log_serial(self, msg: str) -> None:
        """Log a message as one of the console's."""
        self._context.log.info("console: %s", msg)

    def nested(self, msg: str, attrs: Mapping[str, str] = {}) -> contextlib.AbstractContextManager[None]:
        """Log what a block does and how long it takes."""
        return self._context.nested(msg, attrs)

    @property
    def callbacks(self) -> list[Callable[[], Any]]:
        """What is called before each command and during each wait: it may raise to fail the test."""
        return self._context.callbacks

    @callbacks.setter
    def callbacks(self, callbacks: Sequence[Callable[[], Any]]) -> None:
        self._context.callbacks = list(callbacks)

    def run_callbacks(self) -> None:
        """Call them."""
        self._context.run_callbacks()

    @property
    def state_dir(self) -> Path:
        """A directory of the machine for this node's state; made when it is asked for."""
        return _made(self.tmp_dir / f"vm-state-{self.name}")

    @property
    def shared_dir(self) -> Path:
        """The directory of the machine that is /tmp/shared in nodes; made when it is asked for."""
        return _made(self.tmp_dir / "shared-xchg")

    def cleanup_statedir(self) -> None:
        """Remove `state_dir`."""
        shutil.rmtree(self.state_dir)

    def _ran(self, result: CommandResult) -> None:
        if self._on_command is not None:
            self._on_command(self, result)


def _made(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
