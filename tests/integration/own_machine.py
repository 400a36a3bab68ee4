"""A newer Nix than the machine may have, sandboxed: the stand-in's own, in namespaces where its programs are the machine's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Its store is in memory, with a database of its own and no path but the programs; it ends with the namespace.
SCRIPT = """
set -eu
programs=$1; root=$2; shift 2
mount -t tmpfs tmpfs "$root"
cd "$root"
mkdir usr nix proc sys dev run etc tmp old
mkdir -p "./$programs"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$name"; done
mount --bind "$programs/usr" usr
mount --bind "$programs" "./$programs"
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
export PATH=/usr/sbin:/usr/bin
nix-store --load-db
exec "$@" </dev/null
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

FIRST_ID = 0x34000000


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMachine:
    """A root of its own with the stand-in's programs, where `shown` directories of the machine are seen too."""

    programs: Path
    root: Path
    shown: Sequence[Path]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end."""
        self.root.mkdir(exist_ok=True)
        # The tree has no references: it is its own closure.
        dump = ["nix-store", "--dump-db", str(self.programs)]
        known = subprocess.run(dump, capture_output=True, text=True, check=True)
        # A shell in a build, for scripts; the machine's own may be no static one.
        shell = f"sandbox-paths = /bin/sh={self.programs}/usr/bin/busybox\n"
        # Nix names a build's control group after its ids, and ends what it finds there: each run has ids of its own.
        first = FIRST_ID + os.getpid() % 4096 * 65536
        ids = f"start-id = {first}\nid-count = 65536\n"
        return subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private"),
                *("sh", "-c", SCRIPT, "sh", str(self.programs), str(self.root), *argv),
            ],
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/tmp",
                "SHOWN": " ".join(map(str, self.shown)),
                "NIX_CONFIG": NIX_CONFIG + shell + ids,
            },
            input=known.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
