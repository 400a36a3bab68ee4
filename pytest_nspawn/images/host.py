"""The machine's own OS as image: its /usr and /etc, read-only, over an empty root.

The node's /etc is an overlay over the machine's without what starts services, what is the machine's identity, and its
secrets. It starts systemd's own basics, systemd-networkd and what the test asks for, nothing else that is installed.
"""

from __future__ import annotations

import os
from pathlib import Path

from pytest_nspawn import plan
from pytest_nspawn.errors import HostError
from pytest_nspawn.images.base import Image, Place
from pytest_nspawn.plan import Operation

_TOP_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_TOP_DIRECTORIES = (
    "dev",
    "etc",
    "home",
    "media",
    "mnt",
    "opt",
    "proc",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr",
    "var",
)
_NETWORKD = ("usr/lib/systemd/systemd-networkd", "lib/systemd/systemd-networkd")

_HIDDEN = (
    # What starts services, mounts or settings of the machine.
    *("fstab", "crypttab", "init.d", "rc.local", "rcS.d", *(f"rc{level}.d" for level in range(7))),
    *("tmpfiles.d", "sysusers.d", "sysctl.d", "sysctl.conf", "modules-load.d", "modules", "binfmt.d"),
    *("network", "netplan", "NetworkManager", "cron.d", "crontab", "environment"),
    # Its identity.
    *("machine-id", "hostname", "hosts", "resolv.conf", "adjtime", "mtab", "issue.d"),
    # Its secrets.
    *("shadow", "shadow-", "gshadow", "gshadow-", "passwd-", "group-", "subuid", "subgid"),
    *("ssl/private", "ssh/ssh_host_*", "sudoers.d", "krb5.keytab"),
)

_BASICS = (
    "systemd-",
    "dbus",
    "getty",
    "console-getty",
    "dev-",
    "sys-",
    "proc-",
    "run-",
    "tmp.mount",
    "remote-",
    "-.",
)
"""What may start because a package wants it: units of systemd itself, D-Bus and the console's login."""

_STARTING = (
    "sysinit",
    "basic",
    "multi-user",
    "graphical",
    "sockets",
    "timers",
    "local-fs",
    "network",
    "network-online",
)


def is_nixos() -> bool:
    """Whether this machine has no /usr to share: its own OS is NixOS (nixos-version(8))."""
    return Path("/etc/NIXOS").exists()


def host_image() -> Image:
    """The image of this machine. Raises HostError where it has no /usr to share or no systemd."""
    usr = Path("/usr")
    if not any((usr / name).exists() for name in ("lib/systemd/systemd", "bin/systemctl")):
        raise HostError(problem="this machine has no systemd in /usr that nodes could run (image `host`)")
    if not any(Path("/", name).exists() for name in _NETWORKD):
        raise HostError(problem="this machine has no systemd-networkd (image `host`)")
    return Image(
        description="host",
        operations=_operations,
        shifted=("/usr", "/etc"),
        kept={"root": "root", "etc": "root/etc"},
    )


def _operations(place: Place) -> list[Operation]:
    disk, owner, root = place.disk, place.owner, place.root
    below = f"{disk}/root"
    operations = [
        plan.tmpfs(disk, size=place.size, owner=owner),
        plan.directory(below, owner=owner),
        *(plan.directory(f"{below}/{name}", owner=owner) for name in _TOP_DIRECTORIES),
        plan.directory(f"{below}/root", owner=owner, mode=0o700),
        plan.directory(f"{disk}/etc", owner=owner),
        plan.directory(f"{disk}/etc-work"),
        plan.hide(f"{disk}/etc", _there(_HIDDEN), ["systemd"]),
        # A mount of its own, so that what is mounted below it comes along.
        plan.bind(below, root, read_only=False, recursive=True),
        plan.sealed("/usr", f"{root}/usr", idmap=place.idmap),
        plan.settings("/etc", f"{place.home}/etc", idmap=place.idmap),
        plan.overlay(f"{root}/etc", lower=f"{place.home}/etc", upper=f"{disk}/etc", work=f"{disk}/etc-work"),
    ]
    for name in _TOP_LINKS:
        path = Path("/", name)
        if path.is_symlink():
            operations.append(plan.symlink(f"{below}/{name}", os.readlink(path), owner=owner))
        elif path.is_dir():
            operations.append(plan.sealed(str(path), f"{root}/{name}", idmap=place.idmap))
    shadow = place.content(_shadow().encode())
    operations.append(plan.write_in_root(root, "/etc/shadow", shadow, mode=0o640, owner=owner))
    operations += [
        plan.symlink_in_root(root, f"/etc/systemd/system/{unit}", "/dev/null", owner=owner)
        for unit in _wanted_by_packages()
    ]
    return operations


def _there(patterns: tuple[str, ...]) -> list[str]:
    etc = Path("/etc")
    found: list[str] = []
    for pattern in patterns:
        if "*" in pattern:
            found += [str(path.relative_to(etc)) for path in etc.glob(pattern)]
        elif os.path.lexists(etc / pattern):
            found.append(pattern)
    return found


def _shadow() -> str:
    """Nobody has a password, and root none to ask for: a test may log in on the console."""
    names = [line.split(":")[0] for line in Path("/etc/passwd").read_text(encoding="utf-8").splitlines()]
    return "".join(f"{name}:{'' if name == 'root' else '*'}:19000:0:99999:7:::\n" for name in names if name)


def _wanted_by_packages() -> list[str]:
    """Units that packages start by links in /usr, beyond systemd's own basics."""
    found = set()
    for directory in ("/usr/lib/systemd/system", "/lib/systemd/system"):
        for target in _STARTING:
            wants = Path(directory, f"{target}.target.wants")
            if wants.is_dir():
                found |= {name for name in os.listdir(wants) if not name.startswith(_BASICS)}
    return sorted(name for name in found if not name.endswith(".target"))
