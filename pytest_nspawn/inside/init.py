"""The sandbox's PID 1: one thread, one loop; does what the test process asks and reaps whatever ends.

It must reap everything: the kernel waits for the zombies of a node's PID namespace, so that an init that does not
lets systemd-nspawn hang. It ends, and with it every process of the sandbox (pid_namespaces(7)), when the test process
or the warden closes its end. Being of one thread, it may fork; what takes long is done in a child.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_nspawn import plan, wire
from pytest_nspawn.inside import linux, wires
from pytest_nspawn.inside.nodes import Node
from pytest_nspawn.inside.roots import HOST_RUN, Roots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_nspawn.inside.wires import Answered

_CGROUP = "/sys/fs/cgroup"
CONTROLLERS = ("memory", "pids", "cpu")
"""What can limit a node."""


def main(config: dict[str, Any], control: socket.socket, lifeline: int, v1: dict[str, int]) -> NoReturn:
    """Set the namespaces up and serve until either side is gone."""
    try:
        _set_up(confined=config["confined"])
        limits = dict.fromkeys(v1, "v1") | dict.fromkeys(_enable_controllers(), "v2")
        init = Init(config, control, lifeline, v1, limits)
        wire.send(control, {"event": "up", "limits": limits})
    except OSError as error:
        wire.send(control, {"event": "failed", "operation": "set the sandbox up", "problem": _explain(error)})
        os._exit(1)
    try:
        init.serve()
    except Exception:  # noqa: BLE001 (told, and the sandbox ends)
        init.tell(
            {"event": "failed", "operation": "serve", "problem": f"its init failed: {traceback.format_exc()}"}
        )
        os._exit(1)
    os._exit(0)


def _set_up(*, confined: bool) -> None:
    socket.sethostname("pytest-nspawn")
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    # nspawn writes to /run/systemd/nspawn; the machine's own /run stays reachable for binds.
    host_run = linux.clone_tree("/run", recursive=True, read_only=False, idmap_fd=None)
    linux.mount("tmpfs", "/run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755")
    os.mkdir(HOST_RUN)
    linux.attach_tree(host_run, HOST_RUN)
    os.mkdir(plan.STATE)
    # The kernel mounts no file system over itself (EBUSY), and may not let us take the machine's mount away.
    linux.mount("tmpfs", _CGROUP, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, "mode=0755")
    linux.mount("cgroup2", _CGROUP, "cgroup2", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    if confined:
        _show_kernel_files()


def _show_kernel_files() -> None:
    """Mount what `launch` has nodes see: in a user namespace, /proc and /sys can only be mounted by who sees whole ones."""
    for path in plan.KERNEL_FILES.values():
        os.mkdir(path)
    linux.mount(
        "sysfs", plan.KERNEL_FILES["sys"], "sysfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    )
    # That of a PID namespace that has ended: it is whole, and shows no process.
    child = os.fork()
    if child == 0:
        status = 1
        try:
            linux.unshare(linux.CLONE_NEWPID)
            first = os.fork()
            if first == 0:
                flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
                linux.mount("proc", plan.KERNEL_FILES["proc"], "proc", flags)
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        raise OSError("cannot mount /proc in a user namespace: it is covered in part here")


def _enable_controllers() -> list[str]:
    """Give the nodes' cgroups what controllers there are; init leaves the top for that (no internal processes)."""
    with open(f"{_CGROUP}/cgroup.controllers", encoding="ascii") as file:
        there = [name for name in file.read().split() if name in CONTROLLERS]
    if there:
        os.mkdir(f"{_CGROUP}/init")
        _write(f"{_CGROUP}/init/cgroup.procs", "0")
    for name in there:
        _write(f"{_CGROUP}/cgroup.subtree_control", f"+{name}")
    return there


class Init:
    """The loop: requests of the test process, ends of children, words of nodes and wires."""

    def __init__(
        self,
        config: dict[str, Any],
        control: socket.socket,
        lifeline: int,
        v1: dict[str, int],
        limits: dict[str, str],
    ) -> None:
        self._control = control
        self.v1 = v1
        self.limits = limits
        self.roots = Roots(confined=config["confined"], images=f"{plan.STATE}/images")
        self._nodes: dict[int, Node] = {}
        self._children: dict[int, Callable[[int], None]] = {}
        self._queued: list[tuple[dict[str, Any], list[int]]] = []
        self._unpacking: set[str] = set()
        self._wires: dict[int, wires.Client] = {}
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # the kernel drops these for a PID 1 without a handler
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        self._wakeup = wakeup_read
        self._template = wires.start_template(config["paths"], self.in_child)
        self.watch(wakeup_read, self._reap)
        self.watch(lifeline, self._end)
        self.watch(control.fileno(), self._request)
        self._serving = True

    def serve(self) -> None:
        """Run until the test process or the warden is gone."""
        while self._serving:
            for fd, _events in self._epoll.poll():
                reader = self._readers.get(fd)
                if reader is not None:
                    reader()

    def watch(self, fd: int, reader: Callable[[], None]) -> None:
        """Call `reader` whenever `fd` is readable."""
        self._readers[fd] = reader
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Stop that."""
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def child(self, pid: int, ended: Callable[[int], None]) -> None:
        """Call `ended` with the exit code (negative: signal) of a child."""
        self._children[pid] = ended

    def in_child(self) -> None:
        """To be called first in a forked child: signals as a program expects them."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def tell(self, message: wire.Message, fds: Sequence[int] = ()) -> None:
        """Send an event or a reply; nobody is left to read it where the test process is gone."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.send(self._control, message, fds)

    def fail(self, request: int, operation: str, error: OSError) -> None:
        """Answer a request with what went wrong."""
        self.tell(
            {"reply": request, "operation": operation, "problem": _explain(error), "errno": error.errno}
        )

    def _end(self) -> None:
        self._serving = False

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                ended = self._children.pop(pid, None)
                if ended is not None:
                    ended(os.waitstatus_to_exitcode(status))

    def _request(self) -> None:
        try:
            received = wire.receive(self._control)
        except OSError:
            received = None
        if received is None:
            self._end()
            return
        self._handle(*received)

    def _handle(self, message: wire.Message, fds: list[int]) -> None:
        action = {
            "boot": self._boot,
            "start": self._start,
            "agent": self._agent,
            "signal": self._signal,
            "kill": self._kill,
            "keep": self._keep,
            "freeze": self._freeze,
            "links": self._links,
            "capture": self._capture,
            "remove": self._remove,
            "can_shift": self._can_shift,
            "cluster": self._cluster,
            "end_cluster": self._end_cluster,
        }[message["op"]]
        try:
            action(message, fds)
        except OSError as error:
            self.fail(message["id"], message["op"], error)
            wire.close_all(fds)

    def _cluster(self, message: wire.Message, _fds: list[int]) -> None:
        client = wires.Client(self._template)
        self._wires[message["cluster"]] = client

        def answered() -> None:
            if not client.answered():
                self.unwatch(client.fileno())

        self.watch(client.fileno(), answered)
        client.ask({"bridges": message["bridges"]}, self._answer(message, "make the networks"))

    def _end_cluster(self, message: wire.Message, _fds: list[int]) -> None:
        # Its wires end, and with them their network namespace and all that is in it.
        client = self._wires.pop(message["cluster"], None)
        if client is not None:
            self.unwatch(client.fileno())
            client.close()
        self.tell({"reply": message["id"]})

    def _can_shift(self, message: wire.Message, _fds: list[int]) -> None:
        """Whether the file system of a path can be mapped into a user namespace (mount_setattr(2))."""
        from_base = self.roots.shift(message["base"])
        os.close(linux.clone_tree(message["path"], recursive=False, read_only=True, idmap_fd=from_base))
        self.tell({"reply": message["id"]})

    def _boot(self, message: wire.Message, fds: list[int]) -> None:
        for operation in message["operations"]:
            wanted = self.roots.tar_to_unpack(operation)
            if wanted is not None:
                self._queued.append((message, fds))
                self._unpack(*wanted)
                return
        blob = fds[0] if fds else None
        node = Node(self, message, f"{plan.STATE}/{message['node']}", self._wires[message["cluster"]])
        self._nodes[message["node"]] = node
        for operation in message["operations"]:
            try:
                self.roots.perform(operation, blob)
            except OSError as error:
                self.fail(message["id"], plan.describe(operation), error)
                wire.close_all(fds)
                return
        wire.close_all(fds)
        node.start()
        self.tell({"reply": message["id"]}, [node.console])

    def _unpack(self, archive: str, directory: str) -> None:
        """Let tar(1) lay an archive out in memory; the nodes that wait for it are booted then."""
        if archive in self._unpacking:
            return
        self._unpacking.add(archive)
        os.makedirs(directory)
        linux.mount("tmpfs", directory, "tmpfs", 0, "mode=0755,size=80%")
        words = ["tar", "--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--file", archive]
        log = os.open(f"{directory}.log", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        words += ["--directory", directory, "--exclude=./dev/*", "--exclude=dev/*"]
        pid = os.posix_spawnp("tar", words, os.environ, file_actions=actions)

        def ended(status: int) -> None:
            self._unpacking.discard(archive)
            said = os.pread(log, 2000, 0).decode(errors="replace").strip()
            os.close(log)
            waiting, self._queued = self._queued, []
            if not status:
                self.roots.unpacked(archive, directory)
            for message, fds in waiting:
                if status and any(operation.get("archive") == archive for operation in message["operations"]):
                    problem = f"tar ended with exit code {status}: {said}"
                    self.fail(message["id"], f"unpack {archive}", OSError(problem))
                    wire.close_all(fds)
                else:
                    self._handle(message, fds)

        self.child(pid, ended)

    def _start(self, message: wire.Message, _fds: list[int]) -> None:
        self._nodes[message["node"]].start()
        self.tell({"reply": message["id"]})

    def _agent(self, message: wire.Message, _fds: list[int]) -> None:
        with self._nodes[message["node"]].agent() as channel:
            self.tell({"reply": message["id"]}, [channel.fileno()])

    def _signal(self, message: wire.Message, _fds: list[int]) -> None:
        self._nodes[message["node"]].signal(message["signal"])
        self.tell({"reply": message["id"]})

    def _kill(self, message: wire.Message, _fds: list[int]) -> None:
        self._nodes[message["node"]].kill()
        self.tell({"reply": message["id"]})

    def _freeze(self, message: wire.Message, _fds: list[int]) -> None:
        self._nodes[message["node"]].freeze(message["frozen"])
        self.tell({"reply": message["id"]})

    def _links(self, message: wire.Message, _fds: list[int]) -> None:
        answer = self._answer(message, "change the node's links")
        self._nodes[message["node"]].change_links(message["change"], answer)

    def _capture(self, message: wire.Message, _fds: list[int]) -> None:
        client = self._wires.get(message["cluster"])
        if client is None:
            raise FileNotFoundError(errno.ENOENT, "the network is gone with its nodes")
        client.ask({"capture": message["ifname"]}, self._answer(message, "capture packets"))

    def _answer(self, message: wire.Message, operation: str) -> Answered:
        """What passes the answer of the wires on, as the reply to a request."""

        def answer(problem: str | None, number: int | None, fds: list[int]) -> None:
            self.tell(
                {"reply": message["id"], "operation": operation, "problem": problem, "errno": number}, fds
            )

        return answer

    def _remove(self, message: wire.Message, _fds: list[int]) -> None:
        node = self._nodes.pop(message["node"], None)
        if node is None:
            self.tell({"reply": message["id"]})
        else:
            node.remove(lambda: self.tell({"reply": message["id"]}))

    def _keep(self, message: wire.Message, _fds: list[int]) -> None:
        """Copy what a node wrote to its root to a directory of the machine, owners as the node saw them."""
        source = f"{plan.STATE}/{message['node']}/disk"
        base = message["owner"]
        pid = os.fork()
        if pid == 0:
            self.in_child()
            status = 1
            try:
                for name, target in message["parts"].items():
                    _copy_out(f"{source}/{name}", target, base)
                status = 0
            finally:
                os._exit(status)

        def ended(status: int) -> None:
            problem = f"the copy ended with exit code {status}" if status else None
            self.tell({"reply": message["id"], "operation": "keep the node's root", "problem": problem})

        self.child(pid, ended)


def _copy_out(source: str, target: str, base: int) -> None:
    """Copy a tree: files, directories and links; no devices, sockets or pipes."""

    def ignored(directory: str, names: list[str]) -> list[str]:
        kinds = [(name, os.lstat(os.path.join(directory, name)).st_mode) for name in names]
        return [name for name, mode in kinds if (mode & 0o170000) not in (0o100000, 0o040000, 0o120000)]

    def copy(one: str, other: str) -> None:
        shutil.copy2(one, other, follow_symlinks=False)

    shutil.copytree(source, target, symlinks=True, ignore=ignored, copy_function=copy, dirs_exist_ok=True)
    if base:
        for directory, _directories, names in os.walk(source):
            for name in ["", *names]:
                path = os.path.join(directory, name)
                there = os.path.join(target, os.path.relpath(path, source))
                owner = os.lstat(path)
                with contextlib.suppress(FileNotFoundError):  # what was left out above
                    os.chown(
                        there, max(owner.st_uid - base, 0), max(owner.st_gid - base, 0), follow_symlinks=False
                    )


def _explain(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{text}: {error.filename}" if error.filename else text


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
