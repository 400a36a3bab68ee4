"""Each command as the steps that it takes: pure, so that they can be printed and tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath as Path

from pytest_nspawn.imperative import nix
from pytest_nspawn.imperative.container import DROP_IN, Container, Source
from pytest_nspawn.imperative.steps import Delete, Directory, Step, Write, run


def create(
    container: Container, source: Source, system: str, settings: Path, *, machine_id: str, start: bool
) -> list[Step]:
    """A container of a built system; `settings` is the directory of its .nspawn file."""
    return [
        Directory(container.profile.parent),
        nix.set_generation(container.profile, system),
        Write(container.settings(settings), container.settings_text(source)),
        Write(container.drop_in, DROP_IN),
        # systemd-nspawn takes a tree without /usr for no operating system.
        Directory(container.root / "usr"),
        # What systemd-nspawn makes for a bind belongs to the host's root, not to the container's.
        Directory(container.root / "nix/var"),
        # Without one, systemd takes each boot for the first.
        Write(container.root / "etc/machine-id", f"{machine_id}\n"),
        run("systemctl", "daemon-reload"),
        *([_start(container)] if start else []),
    ]


def update(container: Container, source: Source, system: str, settings: Path, *, running: bool) -> list[Step]:
    """A new generation; a running container is restarted on it."""
    return [
        nix.set_generation(container.profile, system),
        Write(container.settings(settings), container.settings_text(source)),
        *([_restart(container)] if running else []),
    ]


def rollback(container: Container, *, running: bool) -> list[Step]:
    """The generation before; a running container is restarted on it."""
    return [nix.roll_back(container.profile), *([_restart(container)] if running else [])]


def start(container: Container) -> list[Step]:
    """Until it has booted."""
    return [_start(container)]


def stop(container: Container) -> list[Step]:
    """A clean shutdown, until it is down."""
    return [run("systemctl", "stop", container.unit)]


def remove(container: Container, settings: Path, generations: Sequence[Path]) -> list[Step]:
    """All of it: what it wrote, its settings, and its generations, which Nix may collect then."""
    return [
        *stop(container),
        run("machinectl", "remove", container.name),
        Delete(container.settings(settings)),
        Delete(container.drop_in),
        Delete(container.drop_in.parent),
        *map(Delete, generations),
        Delete(container.profile),
        run("systemctl", "daemon-reload"),
    ]


def _start(container: Container) -> Step:
    return run("systemctl", "start", container.unit)


def _restart(container: Container) -> Step:
    return run("systemctl", "restart", container.unit)
