"""What the commands share: their options, the engine that those come to, references to tests."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pytest_nspawn.cluster import Engine, EngineOptions
from pytest_nspawn.errors import ConfigError

FLAKE = "flake.nix"


def add_options(parser: argparse.ArgumentParser, *, boots: bool) -> None:
    """Options as those of pytest, without the prefix; those about nodes where the command `boots` some."""
    parser.add_argument(
        "--nixpkgs", metavar="PATH-or-REF", help="nixpkgs to build with, as pytest's --nspawn-nixpkgs"
    )
    parser.add_argument(
        "--manifest", metavar="FILE", type=Path, help="prebuilt systems, as pytest's --nspawn-manifest"
    )
    if boots:
        parser.add_argument(
            "--sandbox", choices=("auto", "root", "user"), default="auto", help="as pytest's --nspawn-sandbox"
        )
    else:
        parser.set_defaults(sandbox="auto")


TEST_HELP = (
    "foo.nix, foo.nix::NAME of several in a file, "
    "flake.nix::checks.x86_64-linux.foo or .#checks.x86_64-linux.foo"
)


def add_test(parser: argparse.ArgumentParser, *, boots: bool) -> None:
    """The argument that names a NixOS test."""
    parser.add_argument("test", metavar="FILE", help=TEST_HELP)
    add_options(parser, boots=boots)


def engine(options: argparse.Namespace, *, image: str = "host") -> Engine:
    """The engine that the options ask for."""
    return Engine(
        EngineOptions(
            image=image,
            nixpkgs=_nixpkgs(options.nixpkgs),
            manifest=options.manifest,
            sandbox=options.sandbox,
            directories=(Path.cwd(),),
            on_build=_status,
        )
    )


def reference(text: str) -> Path | str:
    """A test by its file (`#` and a name where it has several), or by a flake's reference with an attribute.

    Raises ConfigError where there is none.
    """
    place, _, attribute = text.partition("::") if "::" in text else text.partition("#")
    if attribute in ("", "testScript"):
        return _file(place)
    if place.endswith(".nix") and Path(place).name != FLAKE:
        return f"{_file(place)}#{attribute}"
    directory = Path(place or ".").absolute()
    directory = directory.parent if directory.name == FLAKE else directory
    if (directory / FLAKE).exists():
        return f"{directory}#{attribute}"
    if ":" in place:
        return text
    problem = f"there is no {FLAKE} in {directory}"
    raise ConfigError(problem=problem, value=text, hint="say DIR#checks.x86_64-linux.NAME")


def _file(place: str) -> Path:
    path = Path(place).absolute()
    if not path.exists():
        raise ConfigError(
            problem="there is no such file",
            value=place,
            hint="name a .nix file, or DIR#checks.x86_64-linux.NAME",
        )
    if path.name == FLAKE:
        hint = f"say {place}::checks.x86_64-linux.NAME (`nix flake show` lists them)"
        raise ConfigError(problem="a flake has many tests", value=place, hint=hint)
    return path


def directory_of(test: Path | str) -> Path:
    """Where a test is: nixpkgs is looked up from there."""
    place = Path(str(test).partition("#")[0])
    return place.parent if place.suffix == ".nix" else place


def _nixpkgs(text: str | None) -> str | None:
    """A directory is one of where we are; anything else is a flake's reference."""
    return os.path.abspath(text) if text is not None and os.path.isdir(text) else text


def _status(text: str | None) -> None:
    """What Nix does, on a line of the terminal that leaves no trace."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{(text or '')[:100]}")
        sys.stderr.flush()
