"""What the plugin needs of the engine, so that it can be tested with one that boots nothing.

Nothing here imports the engine before a node is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pytest

from pytest_nspawn import timing
from pytest_nspawn.errors import NspawnError
from pytest_nspawn.model import CommandResult, Node, Topology
from pytest_nspawn.plugin.options import Settings

if TYPE_CHECKING:
    from pytest_nspawn.machine import Machine
    from pytest_nspawn.nixbuild import NixTest, Outline
    from pytest_nspawn.plugin.run import Run

BootEvent = Literal["started", "ready", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """What an engine is made of; the callbacks may be called on any thread, with no lock held."""

    settings: Settings
    image_kinds: Mapping[str, Any]
    """Kinds of image that other plugins add, by name."""
    node_args: Callable[[Node, list[str], str], None]
    """Lets other plugins change a node's systemd-nspawn arguments, in place."""
    on_boot: Callable[[BootEvent, Machine], None]
    on_command: Callable[[Machine, CommandResult], None]
    on_build: Callable[[str | None], None]
    """Hears what Nix does, and None when it is done."""


class Cluster(Protocol):
    """What the plugin asks of a cluster; the nodes themselves are the test's business."""

    def __getitem__(self, name: str, /) -> Machine:
        """The node called `name`."""

    def __contains__(self, name: object, /) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    def boot_failures(self) -> Sequence[NspawnError]:
        """Boot failures that no command has raised."""

    def diagnostics(self, name: str) -> Mapping[str, str]:
        """The sections of a failed test's report about one node: title -> text."""

    def status(self, name: str) -> str:
        """What a node that boots is waiting for."""

    def has_state(self, name: str) -> bool:
        """Whether there is anything of a node to keep."""

    def keep(self, name: str, directory: Path) -> None:
        """Copy the root, the console and the journal of a node, which may be down, to a directory."""

    def close(self) -> None:
        """Stop all nodes, and remove what they left."""


class Engine(Protocol):
    """Boots topologies in one sandbox a process, which it makes when the first is booted."""

    def check(self, topology: Topology, *, directories: Sequence[Path] = ()) -> None:
        """Raise the ConfigError or HostError that can be known before anything boots.

        Relative paths in the topology's texts are looked up in `directories`, in that order.
        """

    def boot(
        self,
        topology: Topology,
        *,
        directories: Sequence[Path] = (),
        start: bool = True,
        slow_job: float | None = None,
    ) -> Cluster:
        """Begin to boot all nodes and return at once; with `start=False`, begin nothing.

        With `slow_job`, a node is ready though a start job of its systemd takes longer than these seconds.
        """

    def nix_test(
        self, reference: Path | str, *, directories: Sequence[Path] = (), check: Callable[[Outline], None]
    ) -> NixTest:
        """An existing NixOS test, evaluated and built: its file, or a flake's reference with an attribute.

        `check` is shown the test before anything is built; what it raises ends this.
        """

    def close(self) -> None:
        """Stop whatever still runs, and the sandbox."""


EngineFactory = Callable[[EngineRequest], Engine]

engine_factory_key = pytest.StashKey[EngineFactory]()
"""In `config.stash`: makes another engine than the real one. For tests of the plugin."""


def make_engine(run: Run) -> Engine:
    """The engine of a run, made when its first node is asked for. Raises ConfigError."""
    hook = run.config.hook
    kinds: dict[str, Any] = {}
    for each in hook.pytest_nspawn_image_kinds(config=run.config):
        kinds |= {name: kind for name, kind in each.items() if name not in kinds}
    request = EngineRequest(
        settings=run.settings,
        image_kinds=kinds,
        node_args=lambda node, args, name: hook.pytest_nspawn_node_args(node=node, args=args, name=name),
        on_boot=run.booting,
        on_command=run.events.command,
        on_build=run.building,
    )
    return run.config.stash.get(engine_factory_key, _real_engine)(request)


def _real_engine(request: EngineRequest) -> Engine:
    from pytest_nspawn import cluster

    settings = request.settings
    return cluster.Engine(
        cluster.EngineOptions(
            image=settings.image,
            nixpkgs=settings.nixpkgs,
            manifest=settings.manifest,
            sandbox=settings.sandbox,
            private_users=settings.private_users,
            boot_timeout=settings.boot_timeout or timing.default(cluster.BOOT_TIMEOUT),
            full_boot=settings.full_boot,
            kinds=request.image_kinds,
            node_args=request.node_args,
            on_boot=request.on_boot,
            on_command=request.on_command,
            on_build=request.on_build,
        )
    )
