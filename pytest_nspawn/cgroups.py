"""Where a run may put its control groups: on pure cgroup v2, on hybrid machines, under systemd or without it.

Kernel documents: admin-guide/cgroup-v2 ("Delegation", "No Internal Process Constraint"); systemd's
CGROUP_DELEGATION. Everything is read from files below an injectable root, so each kind of machine can be a test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from pytest_nspawn.errors import HostError

LIMITS = ("memory", "pids", "cpu")
"""The controllers behind a node's `memory`, `tasks` and `cpus`."""

_HIERARCHY = "/sys/fs/cgroup"
_HYBRID = "/sys/fs/cgroup/unified"
_SCOPE = ("--scope", "--quiet", "--collect", "--property=Delegate=yes")


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupHome:
    """The directories under which a run makes its own.

    `path` is in the cgroup v2 hierarchy. It is None where a scope must be asked for first: a process started with
    `scope_prefix` finds itself in it (`own_cgroup`). `controllers` are those of v2 that children of the home can be
    given; `v1` has what root can limit by v1 instead.
    """

    path: Path | None
    v1: Mapping[str, Path]
    scope_prefix: tuple[str, ...]
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of /proc/PID/mountinfo (proc_pid_mountinfo(5)): what a cgroup mount needs of it."""

    kind: str
    root: str
    target: str
    options: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The files that are read: the machine's, or those of a test below another root."""

    root: Path = Path("/")
    uid: int = -1
    getxattr: Callable[[Path, str], bytes] = os.getxattr

    def at(self, path: str | PurePosixPath) -> Path:
        """The file that stands for the machine's absolute `path`."""
        return self.root / str(path).lstrip("/")

    def read(self, path: str | PurePosixPath) -> str:
        """A file's text; empty where it can't be read."""
        try:
            return self.at(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    @property
    def user(self) -> int:
        """The user that nodes are started as."""
        return os.geteuid() if self.uid < 0 else self.uid


def cgroup_home(tree: Tree | None = None) -> CgroupHome:
    """Find the home of this process's runs. Raises HostError, with the command that mends it."""
    tree = tree or Tree()
    mounts = cgroup_mounts(tree)
    mount = _v2_mount(tree, mounts)
    own = _own_path(tree, mount, "self")
    if _systemd_is_manager(tree):
        if _is_delegated(tree, own):
            return _home(tree, mounts, own)
        if _manager_answers(tree):
            return _scope(tree, mounts, mount)
    if tree.user == 0:
        # The root of the hierarchy may hold processes and give out controllers all the same; any other may not.
        return _home(tree, mounts, PurePosixPath(mount.target))
    if _is_owned(tree, own):
        return _home(tree, mounts, own)
    raise _not_ours(tree, mount, own)


def own_cgroup(process: int | str = "self", tree: Tree | None = None) -> Path:
    """The cgroup v2 directory that a process is in. Raises HostError where there is no such hierarchy."""
    tree = tree or Tree()
    return tree.at(_own_path(tree, _v2_mount(tree, cgroup_mounts(tree)), process))


def cgroup_mounts(tree: Tree) -> list[Mount]:
    """All mounts of cgroup file systems, v1 and v2."""
    mounts = []
    for line in tree.read("/proc/self/mountinfo").splitlines():
        left, separator, right = line.partition(" - ")
        words, kinds = left.split(), right.split()
        if separator and len(words) >= 6 and len(kinds) >= 3 and kinds[0] in ("cgroup", "cgroup2"):
            # A mount can be read-only by itself, and its file system as a whole.
            read_only = {"ro"} & {*words[5].split(","), *kinds[2].split(",")}
            options = frozenset(kinds[2].split(",")) - {"ro", "rw"} | read_only
            mounts.append(
                Mount(kind=kinds[0], root=_unescape(words[3]), target=_unescape(words[4]), options=options)
            )
    return mounts


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _v2_mount(tree: Tree, mounts: list[Mount]) -> Mount:
    found = {mount.target: mount for mount in mounts if mount.kind == "cgroup2"}
    sudo = "" if tree.user == 0 else "sudo "
    if not found:
        hybrid = any(mount.kind == "cgroup" for mount in mounts)
        target = _HYBRID if hybrid else _HIERARCHY
        command = f"{sudo}mount -t cgroup2 cgroup2 {target}"
        raise HostError(
            problem="no cgroup v2 hierarchy is mounted",
            mend=f"{sudo}mkdir -p {target} && {command}" if hybrid else command,
        )
    mount = found.get(_HIERARCHY) or found.get(_HYBRID) or next(iter(found.values()))
    if "ro" in mount.options:
        raise HostError(
            problem=f"the cgroup v2 hierarchy at {mount.target} is read-only "
            "(in a container: it needs --privileged, or a writable one of its own)",
            mend=f"{sudo}mount -o remount,rw {mount.target}",
        )
    return mount


def _own_path(tree: Tree, mount: Mount, process: int | str) -> PurePosixPath:
    line = next(
        (line for line in tree.read(f"/proc/{process}/cgroup").splitlines() if line.startswith("0::/")),
        "0::/",
    )
    own = PurePosixPath(line.removeprefix("0::").removesuffix(" (deleted)"))
    # A mount may show a part of the hierarchy only, and a process may be outside that part (`/../..`).
    if ".." not in own.parts and own.is_relative_to(mount.root):
        return PurePosixPath(mount.target) / own.relative_to(mount.root)
    return PurePosixPath(mount.target)


def _systemd_is_manager(tree: Tree) -> bool:
    # sd_booted(3)
    return tree.at("/run/systemd/system").is_dir()


def _manager_answers(tree: Tree) -> bool:
    run = "/run" if tree.user == 0 else f"/run/user/{tree.user}"
    return tree.at(f"{run}/systemd/private").exists()


def _is_delegated(tree: Tree, own: PurePosixPath) -> bool:
    """Whether systemd marked the group as given away, to us."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if tree.getxattr(tree.at(own), name) == b"1":
                return tree.user == 0 or _is_owned(tree, own)
        except OSError:
            continue
    return False


def _is_owned(tree: Tree, own: PurePosixPath) -> bool:
    # What the kernel document names as handed over on delegation.
    try:
        return all(
            os.stat(tree.at(own / name)).st_uid == tree.user
            for name in (".", "cgroup.procs", "cgroup.subtree_control")
        )
    except OSError:
        return False


def _home(tree: Tree, mounts: list[Mount], path: PurePosixPath) -> CgroupHome:
    controllers = _spendable(tree, path)
    return CgroupHome(
        path=tree.at(path), v1=_v1(tree, mounts, controllers), scope_prefix=(), controllers=controllers
    )


def _scope(tree: Tree, mounts: list[Mount], mount: Mount) -> CgroupHome:
    # Under `sudo -u` or cron the session's variables are missing.
    run = f"XDG_RUNTIME_DIR=/run/user/{tree.user}"
    manages = ("systemd-run",) if tree.user == 0 else ("env", run, "systemd-run", "--user")
    manager = PurePosixPath(mount.target)
    if tree.user != 0:
        manager /= f"user.slice/user-{tree.user}.slice/user@{tree.user}.service"
    controllers = frozenset(tree.read(manager / "cgroup.controllers").split())
    return CgroupHome(
        path=None,
        v1=_v1(tree, mounts, controllers),
        scope_prefix=(*manages, *_SCOPE),
        controllers=controllers,
    )


def _spendable(tree: Tree, path: PurePosixPath) -> frozenset[str]:
    """The controllers that children of `path` have, or can be given."""
    enabled = frozenset(tree.read(path / "cgroup.subtree_control").split())
    # Only the hierarchy's root has no cgroup.type; a group that holds processes gives out no controllers.
    is_root = not tree.at(path / "cgroup.type").exists()
    if is_root or not tree.read(path / "cgroup.procs").strip():
        return enabled | frozenset(tree.read(path / "cgroup.controllers").split())
    return enabled


def _v1(tree: Tree, mounts: list[Mount], controllers: frozenset[str]) -> Mapping[str, Path]:
    # Without root nobody gives out v1 groups.
    if tree.user != 0:
        return MappingProxyType({})
    return MappingProxyType(
        {
            name: tree.at(mount.target)
            for name in LIMITS
            if name not in controllers
            for mount in mounts
            if mount.kind == "cgroup" and name in mount.options and "ro" not in mount.options
        }
    )


def _not_ours(tree: Tree, mount: Mount, own: PurePosixPath) -> HostError:
    if _systemd_is_manager(tree):
        return HostError(
            problem=f"no systemd user manager runs for user {tree.user}, so nobody can give it a control group",
            mend=f"sudo loginctl enable-linger {tree.user} && export XDG_RUNTIME_DIR=/run/user/{tree.user}",
        )
    home = PurePosixPath(mount.target) / f"pytest-nspawn-{tree.user}"
    # The shell moves in last: what it starts from then on is in a group of the user's own.
    return HostError(
        problem=f"the control group of this process, {own}, does not belong to user {tree.user}",
        mend=f"G={home}; sudo mkdir -p $G && sudo chown {tree.user} $G $G/cgroup.procs $G/cgroup.subtree_control"
        " && echo $$ | sudo tee $G/cgroup.procs",
    )
