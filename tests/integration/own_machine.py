"""A newer Nix than the machine may have, sandboxed: the stand-in's own, in namespaces where its programs are the machine's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Whatever is built goes to an overlay in memory over the machine's store and database, and ends with the namespace.
SCRIPT = """
set -eu
programs=$1; root=$2; shift 2
mount -t tmpfs tmpfs "$root"
cd "$root"
mkdir usr nix proc sys dev run etc tmp old nix-upper nix-work
for name in bin sbin lib lib64; do ln -s "usr/$name" "$name"; done
mount --bind "$programs/usr" usr
mount -t overlay overlay -o "lowerdir=/nix,upperdir=$root/nix-upper,workdir=$root/nix-work" nix
for name in proc sys dev; do mount --rbind "/$name" "$name"; done
mount -t tmpfs tmpfs run
for path in $SHOWN; do
  mkdir -p "./$path"
  mount --rbind "$path" "./$path"
done
printf 'root:x:0:0::/root:/bin/sh\\n' >etc/passwd
printf 'root:x:0:\\n' >etc/group
pivot_root . old
cd /
umount -l old
PATH=/usr/sbin:/usr/bin
exec "$@"
"""

NIX_CONFIG = """
experimental-features = nix-command flakes auto-allocate-uids cgroups
auto-allocate-uids = true
use-cgroups = true
system-features = uid-range
sandbox = true
sandbox-fallback = false
substituters =
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMachine:
    """A root of its own with the stand-in's programs, where `shown` directories of the machine are seen too."""

    programs: Path
    root: Path
    shown: Sequence[Path]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end."""
        self.root.mkdir(exist_ok=True)
        # A shell in a build, for scripts; the machine's own may be no static one.
        shell = f"sandbox-paths = /bin/sh={self.programs}/usr/bin/busybox\n"
        return subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private"),
                *("sh", "-c", SCRIPT, "sh", str(self.programs), str(self.root), *argv),
            ],
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/tmp",
                "SHOWN": " ".join(map(str, self.shown)),
                "NIX_CONFIG": NIX_CONFIG + shell,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
