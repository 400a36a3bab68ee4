"""A nixpkgs whose programs are Debian's: real NixOS systems on a machine without a binary cache."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.nix_config import SANDBOXED

_HERE = Path(__file__).parent / "debian"
_CACHE = Path(__file__).parents[2] / ".cache/nixpkgs-debian"


def given_nixpkgs() -> Path | None:
    """The tree that NSPAWN_TEST_NIXPKGS names."""
    text = os.environ.get("NSPAWN_TEST_NIXPKGS", "")
    return Path(text).resolve() if text else None


def prepare(nixpkgs: Path) -> Path:
    """The wrapper's directory; made once, which takes two minutes, and found at once from then on."""
    cache = os.environ.get("NSPAWN_TEST_DEBIAN_CACHE") or str(_CACHE)
    return Path(_run(str(_HERE / "prepare"), str(nixpkgs), cache).strip())


def build(expression: Path, wrapper: Path, names: tuple[str, ...]) -> Mapping[str, str]:
    """Builds attributes of a Nix file that takes { wrapper }, in one evaluation: name -> store path."""
    attributes = [argument for name in names for argument in ("-A", name)]
    built = _run("nix-build", "--no-out-link", str(expression), "--arg", "wrapper", str(wrapper), *attributes)
    return dict(zip(names, built.split(), strict=True))


def evaluate(expression: str) -> object:
    return json.loads(_run("nix-instantiate", "--eval", "--strict", "--json", "-E", expression))


def _run(*command: str) -> str:
    environment = os.environ | {"NIX_CONFIG": SANDBOXED}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        message = f"{command[0]} failed with {done.returncode}:\n{done.stderr[-4000:]}"
        raise RuntimeError(message)
    return done.stdout
