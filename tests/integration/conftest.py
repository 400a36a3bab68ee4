"""Real nodes: what the machine has to have, and engines that the tests share or have for themselves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nspawn import host
from pytest_nspawn.cluster import Cluster, Engine, EngineOptions
from pytest_nspawn.errors import HostError
from pytest_nspawn.machine import Machine
from pytest_nspawn.model import Node, Topology
from tests.nix_config import NIX_CONFIG, SANDBOXED
from tests.nixos.given import nixpkgs_over_debian

from .leftovers import Leftovers, run_groups

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    # A shell's job in the background ignores it, and so would what tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def can_boot() -> None:
    """Skip where the machine cannot run nodes, saying what it lacks."""
    try:
        mode = host.resolve_mode("auto")
    except HostError as error:
        pytest.skip(str(error))
    missing = [check for check in host.checks(mode) if check.required and not check.ok]
    if missing:
        pytest.skip("; ".join(f"{check.problem} (mend it with: {check.mend})" for check in missing))


@pytest.fixture(scope="session")
def rootfs() -> Path:
    """A Debian root file system, which `./dev rootfs` makes."""
    path = Path(os.environ.get("NSPAWN_TEST_ROOTFS", ""))
    if not (path / "usr").is_dir() or path == Path():
        pytest.skip("NSPAWN_TEST_ROOTFS names no root file system: make one with ./dev rootfs")
    return path


@pytest.fixture(scope="session")
def engine(can_boot: None) -> Iterator[Engine]:
    """An engine for tests that leave it as they found it; at its end nothing is left."""
    before = Leftovers.now()
    with Engine(EngineOptions()) as engine:
        yield engine
    assert Leftovers.now() == before
    assert run_groups(os.getpid()) == []


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The stand-in for nixpkgs, which `./dev standin` makes; with a cache of results of the tests' own."""
    path = Path(os.environ.get("NSPAWN_TEST_STANDIN", ""))
    if not (path / "default.nix").is_file():
        pytest.skip("NSPAWN_TEST_STANDIN names no stand-in for nixpkgs: make one with ./dev standin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIX_CONFIG", NIX_CONFIG)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield path


@pytest.fixture(scope="session", params=["standin", pytest.param("nixpkgs", marks=pytest.mark.nixos)])
def nixpkgs(request: pytest.FixtureRequest, standin: Path) -> Iterator[Path]:
    """The stand-in, and a real nixpkgs tree where one is given, over Debian's programs."""
    if request.param == "standin":
        yield standin
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIX_CONFIG", SANDBOXED)
        yield nixpkgs_over_debian()


@pytest.fixture(scope="session")
def nix_engine(can_boot: None, nixpkgs: Path) -> Iterator[Engine]:
    """An engine that builds NixOS systems."""
    with Engine(EngineOptions(nixpkgs=str(nixpkgs))) as engine:
        yield engine


@pytest.fixture(scope="module")
def pair(engine: Engine) -> Iterator[Cluster]:
    """Two nodes on one network, for all parity tests of a module."""
    with engine.boot(Topology({"machine": Node(), "other": Node()})) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def machine(pair: Cluster) -> Machine:
    return pair["machine"]


@pytest.fixture(scope="module")
def other(pair: Cluster) -> Machine:
    return pair["other"]
