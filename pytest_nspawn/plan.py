"""The operations that make a node's root, as plain data: built outside, shown in errors, done by the sandbox's init.

Paths are the sandbox's. An owner is the user and group id, in the sandbox, that the node's root has: 0, or the first id
of the node's user namespace. Operations that end in `_in_root` take paths of the node and never leave its root,
whatever symbolic links an image holds (openat2(2), RESOLVE_IN_ROOT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Operation = dict[str, Any]

STATE = "/run/pytest-nspawn"
"""The sandbox's own directory, in memory; every node has one below it, named by its number."""

KERNEL_FILES = {"proc": f"{STATE}/proc", "sys": f"{STATE}/sys"}
"""Where a sandbox in a user namespace has a whole /proc and /sys for its nodes."""


def tmpfs(path: str, *, size: int, owner: int = 0) -> Operation:
    """An empty file system in memory that holds at most `size` bytes."""
    return {"do": "tmpfs", "path": path, "size": size, "owner": owner}


def directory(path: str, *, owner: int = 0, mode: int = 0o755) -> Operation:
    """A directory; its parent exists."""
    return {"do": "directory", "path": path, "owner": owner, "mode": mode}


def symlink(path: str, target: str, *, owner: int) -> Operation:
    """A symbolic link at a path of the sandbox."""
    return {"do": "symlink", "path": path, "target": target, "owner": owner}


def bind(
    source: str, path: str, *, read_only: bool, idmap: int | None = None, recursive: bool = False
) -> Operation:
    """`source` seen at `path`, made where it is missing; `idmap` shifts the owners to start there."""
    return {
        "do": "bind",
        "source": source,
        "path": path,
        "read_only": read_only,
        "idmap": idmap,
        "recursive": recursive,
    }


def sealed(source: str, path: str, *, idmap: int | None) -> Operation:
    """A directory of the machine at `path`, read-only in a way that root in the node cannot undo.

    A read-only bind can be made writable again by whoever may mount in its user namespace; where the node has none of
    its own, an overlay without an upper layer stands for it.
    """
    return {"do": "sealed", "source": source, "path": path, "idmap": idmap}


def store_paths(paths: Sequence[str], path: str, *, idmap: int | None) -> Operation:
    """Some store paths, and no others, in the directory `path`, as `sealed` has them."""
    return {"do": "store_paths", "paths": list(paths), "path": path, "idmap": idmap}


def settings(source: str, path: str, *, idmap: int | None) -> Operation:
    """A directory of the machine's settings at `path`, as the lower layer of an overlay.

    In a user's sandbox it is a copy, made once: root in it may not write beside files of the machine's root, whom its
    user namespace does not know, and so could change no directory that is seen through.
    """
    return {"do": "settings", "source": source, "path": path, "idmap": idmap}


def unpacked(archive: str, path: str) -> Operation:
    """The tree of a tar archive at `path`: unpacked once a sandbox, into memory, then shared by all nodes."""
    return {"do": "unpacked", "archive": archive, "path": path}


def overlay(path: str, *, lower: str, upper: str, work: str) -> Operation:
    """An overlay file system at `path`: what is written goes to `upper`."""
    return {"do": "overlay", "path": path, "lower": lower, "upper": upper, "work": work}


def hide(upper: str, names: Sequence[str], opaque: Sequence[str] = ()) -> Operation:
    """Hide entries of an overlay's lower layer: `names` are gone, directories in `opaque` begin empty."""
    return {"do": "hide", "upper": upper, "names": list(names), "opaque": list(opaque)}


def write_in_root(root: str, path: str, content: tuple[int, int], *, mode: int, owner: int) -> Operation:
    """A file in the node; `content` is where it lies in the request's blob: (offset, length)."""
    return {
        "do": "write_in_root",
        "root": root,
        "path": path,
        "content": list(content),
        "mode": mode,
        "owner": owner,
    }


def symlink_in_root(root: str, path: str, target: str, *, owner: int) -> Operation:
    """A symbolic link in the node, in the place of whatever was there."""
    return {"do": "symlink_in_root", "root": root, "path": path, "target": target, "owner": owner}


def directory_in_root(root: str, path: str, *, mode: int, owner: int) -> Operation:
    """A directory in the node, with its parents."""
    return {"do": "directory_in_root", "root": root, "path": path, "mode": mode, "owner": owner}


def describe(operation: Operation) -> str:
    """One operation as one line: `bind path=/run/... source=/usr read_only=True`."""
    shown = {key: f"<{len(value)}>" if key == "paths" else value for key, value in operation.items()}
    words = [f"{key}={value}" for key, value in shown.items() if key != "do" and value not in (None, False)]
    return " ".join([operation["do"], *words])
