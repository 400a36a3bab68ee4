"""Nix, as the command calls it: argument lists, nothing is run here."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from pytest_nspawn.errors import HostError
from pytest_nspawn.imperative.container import Container, Source
from pytest_nspawn.imperative.steps import Run

EXPRESSION = Path(__file__).resolve().parents[1] / "nixos" / "imperative.nix"

_FLAKES = ("--extra-experimental-features", "nix-command flakes")
_SYSTEM = "config.system.build.toplevel"


def request(container: Container, source: Source) -> str:
    """What the expression is told, as JSON: nothing of it is spliced into Nix text."""
    return json.dumps({"name": container.name, "config": source.config, "nixpkgs": source.nixpkgs})


def build(container: Container, source: Source, request_file: str) -> tuple[str, ...]:
    """The program that builds a system; `built` reads what it prints."""
    if source.flake is not None:
        return (
            "nix",
            *_FLAKES,
            "build",
            "--no-link",
            "--json",
            attribute(source.flake, container),
        )
    return ("nix-build", "--no-out-link", "--argstr", "request", request_file, str(EXPRESSION))


def built(source: Source, printed: str) -> str:
    """The store path of what was built. Raises HostError where that is not one system.

    Nix prints paths only from 2.9 on, JSON before that too.
    """
    paths = printed.split()
    if source.flake is not None:
        try:
            paths = [path for each in json.loads(printed) for path in each["outputs"].values()]
        except (ValueError, TypeError, LookupError, AttributeError):
            paths = []
    if len(paths) != 1 or not paths[0].startswith("/nix/store/"):
        raise HostError(problem=f"Nix built something, but no system: {printed!r}")
    return paths[0]


def attribute(reference: str, container: Container) -> str:
    """A flake reference down to the system: as nixos-rebuild reads it, or with a path of attributes."""
    flake, _, path = reference.partition("#")
    if not path:
        path = container.name
    if "." not in path:
        path = f'nixosConfigurations."{path}"'
    return f"{flake}#{path}" if path.endswith(_SYSTEM) else f"{flake}#{path}.{_SYSTEM}"


def set_generation(profile: PurePosixPath, system: str) -> Run:
    """A new generation of a profile. Nix keeps it from the garbage collector."""
    return Run(("nix-env", "--profile", str(profile), "--set", system))


def roll_back(profile: PurePosixPath) -> Run:
    """Back to the generation before."""
    return Run(("nix-env", "--profile", str(profile), "--rollback"))
