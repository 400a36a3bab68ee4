"""Whether the kernel can map the owners of a directory's files into a user namespace (mount_setattr(2)).

A program of its own, for `doctor`: nothing that it makes outlives it. Exits with 1 and says what the kernel said.
"""

from __future__ import annotations

import os
import signal
import sys

from pytest_nspawn.inside import linux


def main() -> None:
    """Try it with the directory that is the only argument."""
    try:
        with_shifted_owners(sys.argv[1])
    except OSError as error:
        sys.exit(str(error))


def with_shifted_owners(directory: str) -> None:
    """Make such a mount and drop it. Raises OSError where the kernel or the file system can't."""
    ready, unshared = os.pipe()
    child = os.fork()
    if child == 0:
        linux.unshare(linux.CLONE_NEWUSER)
        os.write(unshared, b"!")
        signal.pause()
    try:
        os.close(unshared)
        os.read(ready, 1)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
                file.write("0 524288 65536")
        namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
        os.close(linux.clone_tree(directory, recursive=False, read_only=True, idmap_fd=namespace))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
