"""One node over all its boots: start, readiness, stop, and the channels to the boot that runs.

What happens to it is told by the sandbox's events, on the sandbox's thread; whoever waits is woken by a condition.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_nspawn import wire
from pytest_nspawn.bus import Bus
from pytest_nspawn.console import Console
from pytest_nspawn.errors import (
    BootError,
    HostError,
    MachineError,
    NotRunningError,
    NspawnError,
    RequestedAssertionFailed,
    SandboxError,
)
from pytest_nspawn.plan import STATE
from pytest_nspawn.shell import Shell, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_nspawn.launch import Launch
    from pytest_nspawn.model import Node
    from pytest_nspawn.sandbox import Reply, Sandbox

_POWER_OFF = 90.0
"""Seconds for a clean shutdown; systemd's own limit for stopping a unit."""

_REBOOT = signal.SIGRTMIN + 5
"""What systemd takes for `systemctl reboot` (systemd(1), signals)."""

_CONSOLE_TAIL = 4000

_JOBS = 5.0
"""Seconds for a node that does not get ready to say what it is waiting for."""

_STARTING = re.compile(r"/start running \((?P<time>[\w ]+) / ")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def starting_for(status: str) -> float:
    """Seconds that a start job has run, as PID 1 says of one that takes longer than two; 0 where it says nothing of it."""
    found = _STARTING.search(status)
    times = re.findall(r"(\d+)(h|min|s)\b", found["time"]) if found is not None else []
    return float(sum(int(number) * _SECONDS[unit] for number, unit in times))


class Container:
    """Drives one node's systemd-nspawn through the sandbox."""

    def __init__(
        self,
        sandbox: Sandbox,
        node: Node,
        name: str,
        *,
        boot_timeout: float,
        slow_job: float | None = None,
        changed: Callable[[Container, str], None] | None = None,
    ) -> None:
        """`changed` is called on the sandbox's thread with `started`, `ready`, `failed` or `stopped`.

        A node is ready when its PID 1 has done all jobs of the boot. With `slow_job`, one that takes longer than these
        seconds is not waited for.
        """
        self.name = name
        self.node = node
        self.number = sandbox.number(self._event)
        self.status = ""
        self.boots = 0
        self.started_at: float | None = None
        self.frozen = False
        self._sandbox = sandbox
        self._boot_timeout = boot_timeout
        self._slow_job = slow_job
        self._changed = changed or (lambda _container, _event: None)
        self._launch: Launch | None = None
        self._cluster = 0
        self._condition = threading.Condition()
        self._console: Future[Console] = Future()
        self._shell: Shell | None = None
        self._bus: Bus | None = None
        self._leader_pid = 0
        self._leader_fd = -1
        self._running = False
        self._ready = self._was_ready = self._ending = False
        self._problem: str | None = None
        self._problem_at = 0.0
        self._told = self._asked = False
        self._exit_status: int | None = None

    def __repr__(self) -> str:
        return f"<Container {self.name!r}>"

    def prepare(self, cluster: int, launch: Launch) -> None:
        """Say what `start()` boots."""
        self._cluster, self._launch = cluster, launch

    @property
    def home(self) -> str:
        """The node's directory in the sandbox."""
        return f"{STATE}/{self.number}"

    @property
    def has_state(self) -> bool:
        """Whether there is anything of it to keep: it was started, and its root was made."""
        return self._console.done() and not self._console.cancelled() and self._console.exception() is None

    @property
    def running(self) -> bool:
        """Whether it runs, ready or not; a node that boots again after a reboot does."""
        return self._running

    @property
    def ready(self) -> bool:
        """Whether the boot that runs has reached its default target."""
        return self._ready

    @property
    def console(self) -> Console:
        """The console, the same over all boots. Raises BootError where there never was one."""
        with self._condition:
            if self.started_at is None:
                raise NotRunningError(node=self.name)
        try:
            return self._console.result()
        except SandboxError as error:
            raise BootError(node=self.name, problem=str(error)) from error

    def start(self) -> None:
        """Boot, without waiting; nothing where it runs."""
        self._see_its_end()
        with self._condition:
            if self._running:
                return
            first = self.started_at is None
            self._begin()
        self._changed(self, "started")
        if not first:
            self._sandbox.request("start", node=self.number).add_done_callback(self._started_again)
        elif self._launch is not None:
            blob = os.memfd_create("files", os.MFD_CLOEXEC)
            with os.fdopen(blob, "wb", buffering=0) as file:
                file.write(self._launch.blob)
                future = self._sandbox.request(
                    "boot", [blob], node=self.number, cluster=self._cluster, **self._launch.message()
                )
            future.add_done_callback(self._booted)

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until the node can run commands; one that was never started is started.

        `timeout` in seconds, from its start; None: the limit of a boot. Raises BootError, NotRunningError.
        """
        self._asked = True
        self._see_its_end()
        if self._ready:
            return
        with self._condition:
            new = self.started_at is None
        if new:
            self.start()
        limit = self._boot_timeout if timeout is None else timeout
        if not self._gets_ready(limit):
            error = self._boot_error(f"not ready within its limit of {limit:g} s")
            error.waiting_for = self._jobs() or error.waiting_for
            raise error

    def _gets_ready(self, limit: float) -> bool:
        """Wait until it is ready; False where it is not so within `limit` seconds from its start."""
        with self._condition:
            while not self.ready:
                self._raise_problem()
                if not self._running:
                    raise NotRunningError(node=self.name)
                left = (self.started_at or 0) + limit - time.monotonic()
                if left <= 0:
                    return False
                self._condition.wait(left)
            return True

    def _jobs(self) -> str:
        """What the node's systemd works on, as "web.service (start)"; empty where it does not say."""
        shell = self.agent()
        if shell is None:
            return ""
        try:
            listed = shell.run(["systemctl", "list-jobs", "--plain", "--no-legend"], timeout=_JOBS)
        except (NspawnError, RequestedAssertionFailed, OSError):
            return ""
        jobs = [line.split() for line in listed.stdout.splitlines()]
        return ", ".join(f"{job[1]} ({job[2]})" for job in jobs if job[3:] == ["running"])

    def _see_its_end(self) -> None:
        """Where PID 1 has ended, wait until the sandbox says so, which it does in a moment: a restart may follow."""
        if not _has_ended(self._leader_fd):
            return
        with self._condition:
            if _has_ended(self._leader_fd):
                self._condition.wait_for(partial(self._has_left, self.boots), self._boot_timeout)

    def wait_boot(self, after: int, timeout: float | None = None) -> None:
        """Wait until a boot later than number `after` is ready. Raises BootError."""
        with self._condition:
            limit = time.monotonic() + (self._boot_timeout if timeout is None else timeout)
            while self.boots <= after and self._running:
                if not self._condition.wait(limit - time.monotonic()) and time.monotonic() >= limit:
                    raise self._boot_error("it did not reboot in time")
        self.wait_ready(timeout)

    def wait_stopped(self, timeout: float | None = None) -> int:
        """Wait until it has ended; gives systemd-nspawn's exit code. Raises TimeoutError."""
        with self._condition:
            if not self._condition.wait_for(lambda: not self._running, timeout):
                raise TimeoutError(f"{self.name} still runs after {timeout:g} s; status: {self.status}")
            return self._exit_status or 0

    def power_off(self, timeout: float | None = None) -> None:
        """Shut down cleanly and wait. Raises TimeoutError."""
        limit = _POWER_OFF if timeout is None else timeout
        end = time.monotonic() + limit
        self._refuse_frozen()
        while self._running:
            boot, self._ending = self.boots, True
            self._sandbox.call("signal", node=self.number, signal=int(signal.SIGTERM))
            with self._condition:
                # A node that was about to reboot boots once more: then it is asked again.
                done = self._condition.wait_for(partial(self._has_left, boot), end - time.monotonic())
            if not done:
                raise TimeoutError(f"{self.name} still runs after {limit:g} s; status: {self.status}")
            if self._running:
                self.wait_ready(end - time.monotonic())

    def _has_left(self, boot: int) -> bool:
        return not self._running or self.boots != boot

    def kill(self) -> None:
        """Cut the power: every process of the node ends at once."""
        self._ending = True
        if self._running:
            self._sandbox.call("kill", node=self.number)
            self.wait_stopped(_POWER_OFF)

    def freeze(self, frozen: bool) -> None:
        """Stop every process of the node where it is, or let them run on. Raises NotRunningError."""
        if not self._running:
            raise NotRunningError(node=self.name)
        self._sandbox.call("freeze", node=self.number, frozen=frozen)
        with self._condition:
            self.frozen = frozen

    def impair(self, ifnames: Sequence[str], **how: object) -> None:
        """Change the links of these interfaces: `up`, `netem`; they stay so over restarts.

        Raises NotRunningError, and HostError where the kernel cannot do it.
        """
        if not self._running:
            raise NotRunningError(node=self.name)
        links = self._launch.links if self._launch is not None else ()
        change = {str(link["host_ifname"]): how for link in links if link["ifname"] in ifnames}
        try:
            self._sandbox.call("links", node=self.number, change=change)
        except SandboxError as error:
            if how.get("netem") and error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
                raise HostError(
                    problem=f"node {self.name!r}: this kernel cannot impair links: it lacks CONFIG_NET_SCH_NETEM",
                    mend="modprobe sch_netem",
                ) from error
            raise

    def reboot(self, timeout: float | None = None) -> None:
        """Ask PID 1 to reboot, and wait until the next boot is ready."""
        self.wait_ready()
        self._refuse_frozen()
        before = self.boots
        try:
            signal.pidfd_send_signal(self._leader_fd, _REBOOT)
        except OSError as error:
            raise NotRunningError(node=self.name) from error
        self.wait_boot(before, timeout)

    @property
    def leader_pid(self) -> int:
        """PID 1 of the node, as this process sees it. Raises NotRunningError."""
        with self._condition:
            if self._running and not self._leader_pid and self._problem is None:
                self._condition.wait_for(
                    lambda: self._leader_pid or not self._running, timeout=self._boot_timeout
                )
            if not self._leader_pid:
                raise NotRunningError(node=self.name)
            return self._leader_pid

    def shell(self) -> Shell:
        """Commands, files and sockets of the boot that runs, once it is ready. Raises BootError, NotRunningError."""
        self.wait_ready()
        self._refuse_frozen()
        with self._condition:
            if self._shell is None:
                raise NotRunningError(node=self.name)
            if self._shell.alive:
                return self._shell
        return self._another_agent()

    def agent(self) -> Shell | None:
        """The same without waiting, ready or not: for whoever asks why it is not. None where nothing runs."""
        with self._condition:
            return None if self.frozen else self._shell

    def _refuse_frozen(self) -> None:
        if self.frozen:
            raise NotRunningError(node=self.name, problem="the node is frozen; thaw() lets it run on")

    def _another_agent(self) -> Shell:
        """Something in the node killed the agent; the node itself may be well."""
        try:
            reply = self._sandbox.call("agent", node=self.number)
        except SandboxError as error:
            raise NotRunningError(node=self.name) from error
        with self._condition:
            if self._shell is None or self._shell.alive:
                # Somebody else was faster, or the boot has ended meanwhile.
                wire.close_all(reply.fds)
                if self._shell is None:
                    raise NotRunningError(node=self.name)
                return self._shell
            self._shell.close()
            self._shell = Shell.from_fd(self.name, reply.fds[0])
            return self._shell

    def bus(self) -> Bus:
        """The node's systemd, likewise."""
        shell = self.shell()
        with self._condition:
            if self._bus is None or self._shell is not shell:
                self._bus = Bus(lambda: shell.connect_unix("/run/systemd/private"), node=self.name)
            return self._bus

    def wait_outcome(self) -> None:
        """Wait until a boot that nobody asked anything of has succeeded or failed: its failure is not to be lost."""
        with self._condition:
            if self.started_at is None or self._asked or self._ending:
                return
            left = self.started_at + self._boot_timeout - time.monotonic()
            over = self._condition.wait_for(self._is_decided, max(0.0, left))
            if not over and self._problem is None:
                self._met(f"not ready within its limit of {self._boot_timeout:g} s")

    def _is_decided(self) -> bool:
        return self._was_ready or not self._running or self._problem is not None

    def failure(self) -> BootError | None:
        """Why the last boot failed, where no command has raised it."""
        with self._condition:
            return self._boot_error(self._problem) if self._problem and not self._told else None

    def keep(self, directory: Path) -> None:
        """Copy what the node wrote to its root, and its console's log, to a directory. Raises SandboxError, OSError.

        Nothing where it was never started, or where its root could not be made.
        """
        try:
            console = self.console
        except MachineError:
            return  # it has no state
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "console.log").write_text(console.log(), encoding="utf-8", errors="replace")
        if self._launch is not None:
            parts = {part: str(directory / place) for part, place in self._launch.kept.items()}
            self._sandbox.call("keep", node=self.number, parts=parts, owner=self._launch.owner)

    def remove(self) -> Future[Reply]:
        """Kill it and release all it has in the sandbox; the future is done when nothing is left."""
        self._ending = True
        if self.started_at is None:
            future: Future[Reply] = Future()
            future.cancel()
            return future
        return self._sandbox.request("remove", node=self.number)

    def release(self) -> None:
        """Close this side's descriptors, once it is removed."""
        self._sandbox.forget(self.number)
        with self._condition:
            self._end_boot()
            self._running = False
            self._condition.notify_all()
        if self.has_state:
            self._console.result().close()

    def _begin(self) -> None:
        self._running = True
        self._ready = self._was_ready = self._ending = False
        self._problem = self._exit_status = None
        self._told = False
        self.started_at = time.monotonic()
        self.boots += 1
        self.frozen = False
        self.status = ""

    def _booted(self, future: Future[Reply]) -> None:
        try:
            reply = future.result()
        except SandboxError as error:
            self._console.set_exception(error)
            self._fail(str(error))
            return
        console = Console(reply.fds[0], self.name)
        self._console.set_result(console)

    def _started_again(self, future: Future[Reply]) -> None:
        try:
            future.result()
        except SandboxError as error:
            self._ended(-1, again=False, problem=str(error))

    def _event(self, message: wire.Message, fds: list[int]) -> None:
        if message["event"] == "notify":
            for line in message["lines"]:
                self._notified(line)
        elif message["event"] == "leader":
            self._led(*fds)
        elif message["event"] == "problem":
            self._fail(message["problem"])
        elif message["event"] == "exit":
            self._ended(message["status"], again=message["again"], problem=message.get("problem"))
        elif message["event"] == "gone":
            self._fail(f"the sandbox is gone: {message['problem']}")
            self._ended(-1, again=False)

    def _notified(self, line: str) -> None:
        key, _, value = line.partition("=")
        if key == "STATUS":
            self.status = value
            if self._slow_job is not None and starting_for(value) >= self._slow_job:
                self._got_ready()
        elif key == "READY" and value == "1":
            self._got_ready()
        elif key == "STOPPING":
            with self._condition:
                self._ready = False

    def _got_ready(self) -> None:
        with self._condition:
            if self._was_ready:
                return
            self._ready = self._was_ready = True
            self._condition.notify_all()
        self._changed(self, "ready")

    def _led(self, leader_fd: int, channel: int) -> None:
        with self._condition:
            self._leader_fd = leader_fd
            self._leader_pid = _pid_of(leader_fd)
            self._shell = Shell.from_fd(self.name, channel)
            self._condition.notify_all()

    def _ended(self, status: int, *, again: bool, problem: str | None = None) -> None:
        with self._condition:
            failed = not (again or self._was_ready or self._ending or self._problem)
            self._end_boot()
            if again:
                self._begin()
            else:
                self._running = False
                self._exit_status = status
            if failed:
                self._met(
                    problem or f"systemd-nspawn ended with exit code {status} before the node was ready"
                )
            self._condition.notify_all()
        if failed:
            self._changed(self, "failed")
        self._changed(self, "started" if again else "stopped")

    def _end_boot(self) -> None:
        self._ready = False
        if self._shell is not None:
            self._shell.close()
        if self._bus is not None:
            self._bus.close()
        if self._leader_fd >= 0:
            os.close(self._leader_fd)
        self._shell = self._bus = None
        self._leader_pid, self._leader_fd = 0, -1

    def _fail(self, problem: str) -> None:
        with self._condition:
            self._met(problem)
            self._ready = False
            self._condition.notify_all()
        self._changed(self, "failed")

    def _met(self, problem: str) -> None:
        self._problem, self._problem_at = problem, time.monotonic()

    def _raise_problem(self) -> None:
        if self._problem is not None:
            self._told = True
            raise self._boot_error(self._problem)

    def _boot_error(self, problem: str) -> BootError:
        console = ""
        # Who asks late is told when it happened.
        at = self._problem_at if problem == self._problem else time.monotonic()
        if self.has_state:
            self._console.result().settle()
            console = self._console.result().tail(_CONSOLE_TAIL)
        return BootError(
            node=self.name,
            problem=problem,
            waiting_for=self.status or None,
            console=console,
            seconds=at - self.started_at if self.started_at is not None else None,
        )


def _has_ended(pidfd: int) -> bool:
    """Whether a process has ended (pidfd_open(2)); False for no process."""
    return pidfd >= 0 and readable(pidfd, 0)


def _pid_of(pidfd: int) -> int:
    """A process's id as this process sees it (proc_pid_fdinfo(5)); 0 where it has ended."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii").splitlines():
        if line.startswith("Pid:"):
            return max(int(line.split()[1]), 0)
    return 0
