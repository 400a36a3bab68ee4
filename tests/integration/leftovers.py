"""What a run leaves behind, read off the machine: for the tests that prove that it is nothing."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from pytest_nspawn import cgroups


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What is there at one moment, apart from what other runs of the harness own."""

    mounts: frozenset[str]
    interfaces: frozenset[str]
    files: frozenset[str]

    @classmethod
    def now(cls) -> Leftovers:
        """Look at this process's own namespaces."""
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        files = [
            str(path)
            for pattern in ("/run/systemd/nspawn/*", "/run/pytest-nspawn*", "/var/lib/machines/.#*")
            for path in Path("/").glob(pattern.lstrip("/"))
        ]
        return cls(
            mounts=frozenset(mounts),
            interfaces=frozenset(os.listdir("/sys/class/net")),
            files=frozenset(files),
        )


def run_groups(owner: int) -> list[Path]:
    """The control groups of the runs of a test process, in every hierarchy."""
    home = cgroups.cgroup_home()
    homes = [*([home.path] if home.path else []), *home.v1.values()]
    return [path for each in homes for path in each.glob(f"pytest-nspawn-{owner}-*")]


def processes_in(groups: list[Path]) -> list[int]:
    """Everything that runs in them or below; one that a run beside this removes meanwhile holds nothing."""
    found = []
    for group in groups:
        for directory, _directories, _files in os.walk(group):
            try:
                found += [int(line) for line in Path(directory, "cgroup.procs").read_text().split()]
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
    return found


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
