"""The operations of `plan.py`, done: mounts, directories and files of the nodes' roots."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

from pytest_nspawn.inside import linux
from pytest_nspawn.plan import STATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_nspawn.plan import Operation

HOST_RUN = "/run/host-run"
IDS = 65536


class Roots:
    """Does operations; keeps a user namespace for each shift of ids, and what was unpacked.

    `confined`: the sandbox is in a user namespace, and may do less.
    """

    def __init__(self, *, confined: bool, images: str) -> None:
        self._confined = confined
        self._namespaces: dict[int, int] = {}
        self._images = images
        self._archives: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def perform(self, operation: Operation, blob: int | None) -> None:
        """Do one operation; raises OSError."""
        arguments = {key: value for key, value in operation.items() if key != "do"}
        if operation["do"] == "write_in_root":
            offset, length = arguments.pop("content")
            _write_in_root(**arguments, content=os.pread(blob or 0, length, offset))
            return
        action: Callable[..., None] = getattr(self, f"_{operation['do']}")
        action(**arguments)

    def shift(self, base: int) -> int:
        """A user namespace that maps ids 0 to 65535 to `base` and up."""
        if base not in self._namespaces:
            self._namespaces[base] = user_namespace(base)
        return self._namespaces[base]

    def forget_shift(self, base: int) -> None:
        """Close the namespace of a node that is gone."""
        fd = self._namespaces.pop(base, None)
        if fd is not None:
            os.close(fd)

    def tar_to_unpack(self, operation: Operation) -> tuple[str, str] | None:
        """What an operation needs unpacked first: (archive, directory in the sandbox), or None."""
        if operation["do"] != "unpacked" or operation["archive"] in self._archives:
            return None
        number = self._numbers.setdefault(operation["archive"], len(self._numbers))
        return operation["archive"], f"{self._images}/{number}"

    def unpacked(self, archive: str, directory: str) -> None:
        """Say that an archive lies unpacked in a directory of the sandbox."""
        self._archives[archive] = directory

    def _tmpfs(self, path: str, size: int, owner: int) -> None:
        os.makedirs(path, exist_ok=True)
        linux.mount("tmpfs", path, "tmpfs", 0, f"size={size},mode=0755")
        os.chown(path, owner, owner)

    def _directory(self, path: str, owner: int, mode: int) -> None:
        os.mkdir(path)
        os.chmod(path, mode)
        os.chown(path, owner, owner)

    def _symlink(self, path: str, target: str, owner: int) -> None:
        os.symlink(target, path)
        os.lchown(path, owner, owner)

    def _bind(self, source: str, path: str, read_only: bool, idmap: int | None, recursive: bool) -> None:
        source = visible(source)
        _make_mount_point(source, path)
        # In a user namespace a tree may hold mounts that its owner may not uncover: they have to come along.
        recursive = recursive or self._confined
        idmap_fd = self.shift(idmap) if idmap is not None else None
        tree = linux.clone_tree(source, recursive=recursive, read_only=read_only, idmap_fd=idmap_fd)
        linux.attach_tree(tree, path)

    def _sealed(self, source: str, path: str, idmap: int | None) -> None:
        if idmap is not None or self._confined:
            self._bind(source, path, read_only=True, idmap=idmap, recursive=False)
            return
        nothing = f"{self._images}/nothing"
        os.makedirs(nothing, exist_ok=True)
        linux.mount("overlay", path, "overlay", linux.MS_RDONLY, f"lowerdir={visible(source)}:{nothing}")

    def _store_paths(self, paths: list[str], path: str, idmap: int | None) -> None:
        for source in paths:
            target = f"{path}/{os.path.basename(source)}"
            if os.path.islink(source):
                os.symlink(os.readlink(source), target)
            elif os.path.isdir(source):
                os.mkdir(target)
                self._sealed(source, target, idmap)
            elif idmap is not None or self._confined:
                self._bind(source, target, read_only=True, idmap=idmap, recursive=False)
            else:
                # No overlay stands for a file, and a bind could be made writable in the node.
                shutil.copy(source, target)

    def _settings(self, source: str, path: str, idmap: int | None) -> None:
        if not self._confined:
            self._bind(source, path, read_only=True, idmap=idmap, recursive=False)
            return
        copy = f"{self._images}/settings{source.replace('/', '-')}"
        if not os.path.exists(copy):
            _copy_readable(source, copy)
        os.symlink(copy, path)

    def _unpacked(self, archive: str, path: str) -> None:
        os.symlink(self._archives[archive], path)

    def _overlay(self, path: str, lower: str, upper: str, work: str) -> None:
        options = f"lowerdir={os.path.realpath(lower)},upperdir={upper},workdir={work}"
        if self._confined:
            options += ",userxattr"
        os.makedirs(path, exist_ok=True)
        linux.mount("overlay", path, "overlay", 0, options)

    def _hide(self, upper: str, names: list[str], opaque: list[str]) -> None:
        attribute = "user.overlay.opaque" if self._confined else "trusted.overlay.opaque"
        for name in opaque:
            path = os.path.join(upper, name)
            os.makedirs(path, exist_ok=True)
            owner = os.stat(upper).st_uid
            os.chown(path, owner, owner)
            os.setxattr(path, attribute, b"y")
        for name in names:
            path = os.path.join(upper, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.mknod(path, stat.S_IFCHR, 0)

    def _symlink_in_root(self, root: str, path: str, target: str, owner: int) -> None:
        parent, name = _parent_in_root(root, path, owner)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
            os.symlink(target, name, dir_fd=parent)
            os.chown(name, owner, owner, dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)

    def _directory_in_root(self, root: str, path: str, mode: int, owner: int) -> None:
        parent, name = _parent_in_root(root, path, owner)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=parent)
                os.chown(name, owner, owner, dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)


def visible(path: str) -> str:
    """Where a path of the machine lies in the sandbox, whose /run is its own."""
    if path.startswith(f"{STATE}/") or not (path == "/run" or path.startswith("/run/")):
        return path
    return HOST_RUN + path[len("/run") :]


def _copy_readable(source: str, target: str) -> None:
    """Copy a tree: directories, links and what may be read of the files; the rest is nobody's business in a node."""
    os.makedirs(target, exist_ok=True)
    for entry in os.scandir(source):
        there = f"{target}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), there)
        elif entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(PermissionError):
                _copy_readable(entry.path, there)
        elif entry.is_file(follow_symlinks=False):
            with contextlib.suppress(PermissionError):
                shutil.copy(entry.path, there)


def _make_mount_point(source: str, path: str) -> None:
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    elif not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _write_in_root(root: str, path: str, content: bytes, mode: int, owner: int) -> None:
    parent, name = _parent_in_root(root, path, owner)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(file, view) :]
            os.fchown(file, owner, owner)
            os.fchmod(file, mode)
        finally:
            os.close(file)
    finally:
        os.close(parent)


def _parent_in_root(root: str, path: str, owner: int) -> tuple[int, str]:
    """Open the directory that holds `path`, made where it is missing; gives it and the last name."""
    *directories, name = [part for part in path.split("/") if part]
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    walked = ""
    current = os.dup(top)
    try:
        for part in directories:
            walked += f"/{part}"
            try:
                following = linux.openat2(
                    top, walked, os.O_PATH | os.O_DIRECTORY, resolve=linux.RESOLVE_IN_ROOT
                )
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=current)
                os.chown(part, owner, owner, dir_fd=current, follow_symlinks=False)
                following = linux.openat2(
                    top, walked, os.O_PATH | os.O_DIRECTORY, resolve=linux.RESOLVE_IN_ROOT
                )
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    finally:
        os.close(top)
    return current, name


def user_namespace(base: int) -> int:
    """A user namespace of its own for an idmapped mount; a child makes it, waits to be mapped, and ends."""
    ready_read, ready_write = os.pipe()
    done_read, done_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            linux.unshare(linux.CLONE_NEWUSER)
            os.write(ready_write, b"!")
            os.close(done_write)
            os.read(done_read, 1)
        finally:
            os._exit(0)
    os.close(ready_write)
    os.close(done_read)
    try:
        if not os.read(ready_read, 1):
            raise OSError("unshare(CLONE_NEWUSER) failed: are user namespaces switched off?")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write(f"0 {base} {IDS}")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.close(done_write)
        os.waitpid(pid, 0)
