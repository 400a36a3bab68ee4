"""An OS tree as image: a directory, or an archive that is unpacked into memory once a sandbox. Never written to."""

from __future__ import annotations

from pathlib import Path

from pytest_nspawn import plan
from pytest_nspawn.errors import ConfigError
from pytest_nspawn.images.base import Image, Place
from pytest_nspawn.plan import Operation

_INITS = ("usr/lib/systemd/systemd", "lib/systemd/systemd", "sbin/init", "usr/sbin/init", "init")


def rootfs_image(path: Path) -> Image:
    """The image of a tree or an archive. Raises ConfigError where it holds no OS that can be booted."""
    path = path.resolve()
    if path.is_dir():
        _check_tree(path)
        source, shifted = None, (str(path),)
    else:
        _check_archive(path)
        source, shifted = str(path), ("/run",)  # unpacked to a tmpfs like that of the sandbox's /run

    def operations(place: Place) -> list[Operation]:
        disk, lower = place.disk, f"{place.home}/lower"
        tree = f"{place.home}/unpacked" if source else str(path)
        unpack = [plan.unpacked(source, tree)] if source else []
        return [
            plan.tmpfs(disk, size=place.size, owner=place.owner),
            plan.directory(f"{disk}/upper", owner=place.owner),
            plan.directory(f"{disk}/work"),
            *unpack,
            plan.bind(tree, lower, read_only=True, idmap=place.idmap),
            plan.overlay(place.root, lower=lower, upper=f"{disk}/upper", work=f"{disk}/work"),
        ]

    return Image(
        description=f"rootfs:{path}",
        operations=operations,
        tree=None if source else path,
        shifted=shifted,
        kept={"upper": "root"},
    )


def _check_tree(path: Path) -> None:
    if not any((path / name).is_file() for name in ("etc/os-release", "usr/lib/os-release")):
        raise ConfigError(
            problem="this directory is no root of an OS: it has neither etc/os-release nor usr/lib/os-release",
            value=str(path),
            hint="make one with debootstrap, mmdebstrap, dnf --installroot or mkosi",
        )
    if not any((path / name).is_file() or (path / name).is_symlink() for name in _INITS):
        raise ConfigError(
            problem="this root of an OS has no systemd to boot",
            value=str(path),
            hint="install its packages systemd and systemd-sysv (or the like) into it",
        )


def _check_archive(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(problem="this is neither a directory nor an archive", value=str(path))
    with path.open("rb") as file:
        start = file.read(512)
    # What tar(1) recognises by itself: its own header, or one of a compression.
    if start[257:262] != b"ustar" and not start.startswith(
        (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"LZIP", b"\x04\x22\x4d\x18")
    ):
        raise ConfigError(
            problem="this file is no tar archive",
            value=str(path),
            hint="give a directory, .tar, .tar.gz, .tar.xz, .tar.zst",
        )
