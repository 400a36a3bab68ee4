"""The other side of the comparison: systemd-nspawn as its manual page says, and the NixOS driver's way in."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from pytest_nspawn import host

_START_LIMIT = 60

# nspawn wants a cgroup v2 hierarchy of its own with PID 1 in it, and leaves files in /run. The time is taken after all this is made.
_SCRIPT = """
set -e
echo $$ >"$1/cgroup.procs"
exec unshare --mount --net --ipc --uts --cgroup --pid --fork --mount-proc bash -ec '
  umount --recursive /sys/fs/cgroup 2>/dev/null || true
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mount -t tmpfs tmpfs /run
  eval "$3"
  echo $EPOCHREALTIME >&3
  exec 3>&-
  exec systemd-nspawn --quiet --machine="$2" --register=no --keep-unit --notify-ready=yes $4 \
    </dev/null >/dev/null 2>&1
' bash "$2" "$3" "$4" "$5"
"""
_TREE = "--volatile=overlay --private-network --boot --directory={root}"

# A NixOS container: an empty root, the store, and a link that comes up on a bridge, as networkd's defaults find it.
_SYSTEM_ROOT = """
mkdir /run/root /run/root/usr /run/root/etc
ip link add br0 type bridge forward_delay 0
ip link set br0 up
"""
_SYSTEM = (
    "--directory=/run/root --bind-ro=/nix/store --network-bridge=br0 --kill-signal=SIGRTMIN+3 {system}/init"
)


class BareNode:
    """One node of a bare `systemd-nspawn --boot`, in namespaces and a control group of its own.

    `began` is when systemd-nspawn was started, `ended` when READY=1 came (time.time()); `leader` is its PID 1.
    """

    def __init__(self, rootfs: Path, name: str) -> None:
        self._start(name, before="", arguments=_TREE.format(root=rootfs))

    def _start(self, name: str, *, before: str, arguments: str) -> None:
        home = host.cgroup_home().path
        if home is None:
            raise SystemExit(
                "the comparison needs a control group of its own: run it as root, not under a scope"
            )
        self._cgroup = home / f"bench-{os.getpid()}-{name}"
        self._cgroup.mkdir()
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        path = f"{self._directory.name}/notify"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(path)
        started, started_write = os.pipe()
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f"exec 3>&{started_write}\n{_SCRIPT}",
                "bash",
                self._cgroup,
                ".",
                name,
                before,
                arguments,
            ],
            env={
                "PATH": os.environ["PATH"],
                "NOTIFY_SOCKET": path,
                "SYSTEMD_NSPAWN_LOCK": "0",
                "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            },
            pass_fds=[started_write],
        )
        os.close(started_write)
        self._started = os.fdopen(started, encoding="ascii")
        self.leader = 0
        self.began = self.ended = 0.0

    def wait(self) -> None:
        """Block until READY=1; raises TimeoutError."""
        self.began = float(self._started.readline())
        limit = time.monotonic() + _START_LIMIT
        while True:
            ready, _, _ = select.select([self._notify], [], [], max(0, limit - time.monotonic()))
            if not ready:
                raise TimeoutError(f"a bare node was not ready in {_START_LIMIT} s")
            now = time.time()
            for line in self._notify.recv(65536).decode().splitlines():
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    self.leader = self._seen_from_here(line.partition("=")[2])
                if line == "READY=1":
                    self.ended = now
                    return

    def _seen_from_here(self, number: str) -> int:
        """A PID 1 by the number that it has in the namespace of its nspawn."""
        for directory, _, _ in os.walk(self._cgroup):
            for pid in Path(directory, "cgroup.procs").read_text().split():
                status = Path(f"/proc/{pid}/status").read_text().splitlines()
                if any(line.startswith("NSpid:") and line.split()[-2:] == [number, "1"] for line in status):
                    return int(pid)
        raise ProcessLookupError(number)

    def stop(self) -> None:
        """Kill all of it and remove what it left."""
        (self._cgroup / "cgroup.kill").write_text("1")
        self._process.wait()
        while "populated 1" in (self._cgroup / "cgroup.events").read_text():
            time.sleep(0.005)
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            os.rmdir(directory)
        self._started.close()
        self._notify.close()
        self._directory.cleanup()

    def enter(self, command: Sequence[str]) -> list[str]:
        """The command as somebody outside runs it in the node."""
        return [
            "nsenter",
            f"--target={self.leader}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--",
            *command,
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class BareSystem(BareNode):
    """The same with a built NixOS system."""

    def __init__(self, system: str) -> None:
        self._start("system", before=_SYSTEM_ROOT, arguments=_SYSTEM.format(system=system))


@contextlib.contextmanager
def nodes(rootfs: Path, count: int) -> Iterator[list[BareNode]]:
    """As many nodes at once, all ready."""
    with contextlib.ExitStack() as stack:
        booted = [stack.enter_context(BareNode(rootfs, f"bare{number}")) for number in range(count)]
        for node in booted:
            node.wait()
        yield booted
