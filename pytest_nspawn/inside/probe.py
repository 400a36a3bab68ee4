"""Whether the kernel can map the owners of a directory's files into a user namespace (mount_setattr(2)).

A program of its own, for `doctor`: nothing that it makes outlives it. Exits with 1 and says what the kernel said.
"""

from __future__ import annotations

import os
import sys

from pytest_nspawn.inside import linux
from pytest_nspawn.inside.roots import user_namespace

_FIRST = 524288


def main() -> None:
    """Try it with the directory that is the only argument."""
    try:
        with_shifted_owners(sys.argv[1])
    except OSError as error:
        sys.exit(str(error))


def with_shifted_owners(directory: str) -> None:
    """Make such a mount and drop it. Raises OSError where the kernel or the file system can't."""
    namespace = user_namespace(_FIRST)
    os.close(linux.clone_tree(directory, recursive=False, read_only=True, idmap_fd=namespace))
