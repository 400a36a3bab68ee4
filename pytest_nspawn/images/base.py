"""What all kinds of image have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_nspawn.plan import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a node's root is made, in the sandbox; `hosts` is what its /etc/hosts has to say."""

    home: str
    """A directory of the node's own, empty."""
    size: int
    """Bytes that the node may write."""
    owner: int
    """The user and group id, in the sandbox, that the node knows as root."""
    hosts: str
    content: Callable[[bytes], tuple[int, int]]
    """Puts bytes into the request and says where, for `plan.write_in_root`."""

    @property
    def disk(self) -> str:
        """What stays over reboots: a file system in memory."""
        return f"{self.home}/disk"

    @property
    def root(self) -> str:
        """Where the node's root is mounted, or lies."""
        return f"{self.home}/root"

    @property
    def idmap(self) -> int | None:
        """How binds of the image shift owners: None where the node has no user namespace of its own."""
        return self.owner or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An OS to boot: how its root is made, and what is started in it."""

    description: str
    operations: Callable[[Place], list[Operation]]
    """Operations that leave a root at `Place.root`, with everything that is written to it below `Place.disk`."""
    payload: tuple[str, ...] = ("--boot",)
    """The last arguments of systemd-nspawn: `--boot`, or a program of the image and its arguments."""
    tree: Path | None = None
    """The directory of the machine that the root's own directories come from, where there is one."""
    shifted: tuple[str, ...] = ()
    """Paths whose owners must be mapped where the node has a user namespace of its own."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Directories below `Place.disk` that hold what the node wrote, and where in a kept state they go."""
    units: str = "/etc/systemd/system"
    """The directory of the node for units of the test."""
    enables_networkd: bool = True
    """Whether the harness has to enable systemd-networkd; a NixOS system says itself what runs."""
    configures_network: bool = False
    """Whether the image itself has its addresses and everybody's names."""
    kernel_arguments: bool = True
    """Whether PID 1 sees arguments after the payload as a kernel command line."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of PID 1."""
    shutdown_signal: str = "SIGRTMIN+4"
    """What PID 1 takes for a clean poweroff (systemd(1), signals)."""
