"""The system calls that Python 3.11 has no function for. Each raises OSError with the call's name and operand."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 0x2

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 0x1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_IDMAP = 0x00100000

# Since Linux 5.1 new system calls have the same number on every architecture (but alpha).
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSCONFIG = 431
_SYS_CLONE3 = 435
_SYS_FSPICK = 433
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, call: str, operand: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", operand or None)
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare", hex(flags))


def fork_into(cgroup: int) -> int:
    """fork(2) with the child in another cgroup v2 directory: clone3(2), CLONE_INTO_CGROUP.

    Moving a process there afterwards takes the kernel ten milliseconds and more. For processes of one thread; the
    child is to start another program, or to fork.
    """
    arguments = struct.pack("=11Q", 0x200000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup)
    return _check(_libc.syscall(_SYS_CLONE3, arguments, ctypes.c_size_t(len(arguments))), "clone3")


def setns(fd: int, flags: int) -> None:
    """setns(2); with a pidfd, several namespaces at once (Linux 5.8)."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns", hex(flags))


def mount(source: str, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    _check(result, f"mount {fstype or 'bind'} ({data or ''})", target)


def umount(target: str) -> None:
    """umount2(2) with MNT_DETACH: gone from the tree at once, released when its last user ends."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)), "umount", target)


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) with one argument."""
    return _check(
        _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), 0, 0, 0), "prctl", f"{option}, {argument}"
    )


def clone_tree(source: str, *, recursive: bool, read_only: bool, idmap_fd: int | None) -> int:
    """A detached copy of the mount at `source` as a descriptor: open_tree(2), mount_setattr(2).

    `idmap_fd` is a user namespace; files then show the owners that they have in it.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    tree = _check(
        _libc.syscall(_SYS_OPEN_TREE, ctypes.c_int(_AT_FDCWD), os.fsencode(source), ctypes.c_uint(flags)),
        "open_tree",
        source,
    )
    set_attributes = (_MOUNT_ATTR_RDONLY if read_only else 0) | (
        _MOUNT_ATTR_IDMAP if idmap_fd is not None else 0
    )
    if set_attributes:
        attributes = struct.pack("=QQQQ", set_attributes, 0, 0, idmap_fd or 0)
        at_flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
        try:
            _check(
                _libc.syscall(
                    _SYS_MOUNT_SETATTR,
                    ctypes.c_int(tree),
                    b"",
                    ctypes.c_uint(at_flags),
                    attributes,
                    ctypes.c_size_t(len(attributes)),
                ),
                "mount_setattr",
                source,
            )
        except OSError:
            os.close(tree)
            raise
    return tree


def attach_tree(tree: int, target: str) -> None:
    """Mount what `clone_tree` gave at `target`: move_mount(2). Closes the descriptor."""
    try:
        _check(
            _libc.syscall(
                _SYS_MOVE_MOUNT,
                ctypes.c_int(tree),
                b"",
                ctypes.c_int(_AT_FDCWD),
                os.fsencode(target),
                ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
            ),
            "move_mount",
            target,
        )
    finally:
        os.close(tree)


def resize_tmpfs(path: str, size: int) -> None:
    """Change the limit of a mounted tmpfs, in bytes, and nothing else of the mount: fspick(2), fsconfig(2)."""
    picked = _check(
        _libc.syscall(_SYS_FSPICK, ctypes.c_int(_AT_FDCWD), os.fsencode(path), ctypes.c_uint(1)),
        "fspick",
        path,
    )
    try:
        for command, key, value in ((1, b"size", str(size).encode()), (7, None, None)):
            result = _libc.syscall(
                _SYS_FSCONFIG, ctypes.c_int(picked), ctypes.c_uint(command), key, value, ctypes.c_int(0)
            )
            _check(result, "fsconfig", path)
    finally:
        os.close(picked)


def openat2(directory: int, path: str, flags: int, mode: int = 0, *, resolve: int) -> int:
    """openat2(2); `directory` -100 is the working directory."""
    # The kernel refuses a mode where nothing is created.
    creates = flags & (os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY))
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode if creates else 0, resolve)
    return _check(
        _libc.syscall(
            _SYS_OPENAT2, ctypes.c_int(directory), os.fsencode(path), how, ctypes.c_size_t(len(how))
        ),
        "openat2",
        path,
    )


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def limit_capabilities(allowed: int) -> None:
    """Drop from the bounding set and from this process what is not in the bit mask `allowed` (capabilities(7))."""
    for capability in range(_LAST_CAPABILITY + 1):
        if not allowed >> capability & 1 and prctl(PR_CAPBSET_READ, capability):
            prctl(PR_CAPBSET_DROP, capability)
    header = _CapHeader(0x20080522, 0)
    data = (_CapData * 2)()
    _check(_libc.capget(ctypes.byref(header), data), "capget")
    for index in range(2):
        word = allowed >> (32 * index) & 0xFFFFFFFF
        data[index].permitted &= word
        data[index].effective &= word
        data[index].inheritable = 0
    _check(_libc.capset(ctypes.byref(header), data), "capset")


def bounding_set(status: int) -> int:
    """The capability bounding set of a process, from its open /proc/PID/status (proc(5))."""
    for line in os.pread(status, 65536, 0).splitlines():
        if line.startswith(b"CapBnd:"):
            return int(line.split()[1], 16)
    raise OSError("/proc/PID/status has no CapBnd")


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


_LAST_CAPABILITY = int(_read("/proc/sys/kernel/cap_last_cap"))


INOTIFY_EVENTS = (
    0x00000100 | 0x00000080 | 0x00000004 | 0x00000400 | 0x00000800
)  # create, moved to, attrib, own end


def inotify(paths: list[str]) -> int:
    """A descriptor that becomes readable when something appears in one of the directories (inotify(7))."""
    fd = _check(_libc.inotify_init1(ctypes.c_int(os.O_CLOEXEC | os.O_NONBLOCK)), "inotify_init1")
    try:
        for path in paths:
            _check(
                _libc.inotify_add_watch(ctypes.c_int(fd), os.fsencode(path), ctypes.c_uint32(INOTIFY_EVENTS)),
                "inotify_add_watch",
                path,
            )
    except OSError:
        os.close(fd)
        raise
    return fd
