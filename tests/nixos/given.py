"""The nixpkgs that a test is given, as one that builds on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.nix_config import SANDBOXED

from . import debian_nixpkgs


def given_nixpkgs() -> Path:
    """The tree itself: enough to evaluate. Skips the test where there is none, or no Nix."""
    tree = debian_nixpkgs.given_nixpkgs()
    if tree is None:
        pytest.skip("NSPAWN_TEST_NIXPKGS names no nixpkgs tree")
    if shutil.which("nix-build") is None:
        pytest.skip("there is no Nix on PATH")
    return tree


def nixpkgs_over_debian() -> Path:
    """The tree over Debian's programs. Skips the test where there is none, or where it cannot be made."""
    tree = given_nixpkgs()
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("a package set over Debian's programs is made as root on Debian")
    return debian_nixpkgs.prepare(tree)


def buildable_nixpkgs(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Over Debian's programs on Debian, else as it is: then Nix's own cache has the programs."""
    if shutil.which("apt-get") is None:
        return given_nixpkgs()
    monkeypatch.setenv("NIX_CONFIG", SANDBOXED)
    return nixpkgs_over_debian()
