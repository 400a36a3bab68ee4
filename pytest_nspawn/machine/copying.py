"""Trees of files between the machine and a node.

Into a node everything is written by the node's agent, where its links lead nowhere else. Out of a node nothing that it
made is followed: each directory is opened by its name in the one above it, without links (openat(2), O_NOFOLLOW).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path, PurePosixPath

from pytest_nspawn.machine.channels import ShellChannel
from pytest_nspawn.machine.context import Context, hidden
from pytest_nspawn.machine.files import NodePath, rooted

__tracebackhide__ = hidden

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_KEPT = 0o777
"""Bits of a mode that leave a node: a program that it made shall give nobody's rights to whom runs it here."""


class Copies:
    """Copies files and directories to and from one node."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def into(self, source: str | os.PathLike[str], target: NodePath) -> None:
        """As `cp -r`: into the target where that is a directory. Links of the machine are followed."""
        shell = self._context.shell()
        found = os.stat(source)
        where = PurePosixPath(rooted(target))
        if shell.exists(str(where)) and stat.S_ISDIR(shell.stat(str(where)).mode):
            where /= Path(source).absolute().name
        shell.mkdir(str(where.parent))
        _send(shell, os.fspath(source), found, str(where), ())

    def into_file(self, source: str | os.PathLike[str], target: NodePath) -> None:
        """One file, under exactly that name and with the mode that a new file has."""
        shell = self._context.shell()
        where = rooted(target)
        shell.mkdir(os.path.dirname(where))
        _send_file(shell, os.fspath(source), where)

    def out(self, source: NodePath, out_dir: Path, target_dir: str | os.PathLike[str]) -> Path:
        """As `cp -r` to a directory of the machine, which is made; what has the name already is replaced.

        The source may be a link, links below it stay links; set-user-ID bits, devices, pipes and sockets stay behind.
        """
        shell = self._context.shell()
        where = rooted(source)
        mode = shell.stat(where).mode
        name = PurePosixPath(where).name or self._context.node
        directory = _open_target(out_dir, target_dir)
        try:
            self._fetch(shell, where, mode, directory, name)
        finally:
            os.close(directory)
        return Path(out_dir, target_dir, name)

    def _fetch(self, shell: ShellChannel, source: str, mode: int, directory: int, name: str) -> None:
        if stat.S_ISDIR(mode):
            self._fetch_directory(shell, source, mode, directory, name)
        elif stat.S_ISREG(mode):
            _make_room(directory, name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with (
                os.fdopen(shell.open(source, os.O_RDONLY), "rb") as there,
                os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as here,
            ):
                shutil.copyfileobj(there, here, _CHUNK)
                os.fchmod(here.fileno(), mode & _KEPT)
        elif stat.S_ISLNK(mode):
            _make_room(directory, name)
            os.symlink(shell.readlink(source), name, dir_fd=directory)
        else:
            self._context.log.warning("%s is no file, directory or link: it is not copied", source)

    def _fetch_directory(
        self, shell: ShellChannel, source: str, mode: int, directory: int, name: str
    ) -> None:
        _make_room(directory, name, for_directory=True)
        # In a directory that is there, what the copy has no name for stays.
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=directory)
        fd = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            for child in shell.listdir(source):
                if child in ("", ".", "..") or "/" in child:
                    raise OSError(errno.EBADMSG, "the node names a file as no file can be named", child)
                below = f"{source.rstrip('/')}/{child}"
                self._fetch(shell, below, shell.stat(below, follow=False).mode, fd, child)
            os.fchmod(fd, mode & _KEPT)
        finally:
            os.close(fd)


def _open_target(out_dir: Path, target_dir: str | os.PathLike[str]) -> int:
    """The directory to copy to, made where it is missing.

    Below `out_dir` no link is followed: an earlier copy may have brought one.
    """
    base = out_dir.absolute()
    target = Path(os.path.normpath(base / target_dir))
    inside = target.is_relative_to(base)
    start = base if inside else target
    start.mkdir(parents=True, exist_ok=True)
    fd = os.open(start, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in target.relative_to(base).parts if inside else ():
        above = fd
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=above)
            fd = os.open(part, _DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return fd


def _make_room(directory: int, name: str, *, for_directory: bool = False) -> None:
    """Remove what has the name, but a directory where one is wanted."""
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        os.unlink(name, dir_fd=directory)
    elif not for_directory:
        raise IsADirectoryError(errno.EISDIR, "a directory is in the way of a file", name)


def _send(
    shell: ShellChannel, source: str, found: os.stat_result, target: str, above: tuple[tuple[int, int], ...]
) -> None:
    if not stat.S_ISDIR(found.st_mode):
        _send_file(shell, source, target)
        shell.chmod(target, stat.S_IMODE(found.st_mode))
        return
    identity = (found.st_dev, found.st_ino)
    if identity in above:
        raise OSError(errno.ELOOP, "a link leads back to a directory above it", source)
    shell.mkdir(target)
    with os.scandir(source) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            _send(shell, entry.path, entry.stat(), f"{target}/{entry.name}", (*above, identity))
    shell.chmod(target, stat.S_IMODE(found.st_mode))


def _send_file(shell: ShellChannel, source: str, target: str) -> None:
    # Without O_NONBLOCK a named pipe would be waited for.
    here = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(here, "rb") as source_file:
        if not stat.S_ISREG(os.fstat(here).st_mode):
            raise shutil.SpecialFileError(f"{source} is no regular file")
        fd = shell.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        with os.fdopen(fd, "wb") as target_file:
            shutil.copyfileobj(source_file, target_file, _CHUNK)
