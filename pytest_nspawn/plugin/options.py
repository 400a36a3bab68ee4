"""The options, their twins in the ini file, and what both come to."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from pytest_nspawn import timing
from pytest_nspawn.errors import NspawnError

Sandbox = Literal["auto", "root", "user"]
PrivateUsers = Literal["auto", "yes", "no"]
Keep = Literal["never", "failed", "always"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line and the ini file ask for; times are seconds."""

    image: str = "host"
    nixpkgs: str | None = None
    manifest: Path | None = None
    sandbox: Sandbox = "auto"
    private_users: PrivateUsers = "auto"
    skip_unavailable: bool = False
    keep: Keep = "failed"
    shell: bool = False
    boot_timeout: float | None = None
    timeout_factor: float = 1.0
    full_boot: bool = False
    continue_subtests: bool = False


_CHOICES = {
    "sandbox": ("auto", "root", "user"),
    "private_users": ("auto", "yes", "no"),
    "unavailable": ("fail", "skip"),
    "keep": ("never", "failed", "always"),
}

_OPTIONS = (
    (
        "image",
        "KIND",
        "image of nodes without a config: host, nixos, rootfs:DIR, rootfs:FILE.tar or a store path (default: host)",
    ),
    (
        "nixpkgs",
        "PATH-or-REF",
        "nixpkgs for nodes given by config, a directory or a flake reference (default: the flake's, NIX_PATH, the registry)",
    ),
    (
        "manifest",
        "FILE",
        "prebuilt systems as JSON, from a config's name to a store path or what is known of it: no Nix is run",
    ),
    ("sandbox", "auto|root|user", "run privileged, or inside a user namespace (default: auto)"),
    ("private-users", "auto|yes|no", "a user namespace of its own for each node (default: auto)"),
    ("unavailable", "fail|skip", "what a test does on a machine that cannot run nodes (default: fail)"),
    (
        "keep",
        "never|failed|always",
        "keep a node's root, console and journal, and say where (default: failed)",
    ),
    ("boot-timeout", "S", "seconds that a node may take to boot"),
    ("timeout-factor", "N", "a factor on every default time-out (default: 1)"),
)


def add_options(parser: pytest.Parser) -> None:
    """Add each option as `--nspawn-NAME` and as ini `nspawn_NAME`; the default of both is None."""
    group = parser.getgroup("nspawn", "systemd nodes (pytest-nspawn)")
    for name, metavar, text in _OPTIONS:
        group.addoption(f"--nspawn-{name}", metavar=metavar, default=None, help=text)
        parser.addini(f"nspawn_{name.replace('-', '_')}", text, type="string", default=None)
    full_boot = (
        "boot as the image would on real hardware: drop none of the units that a container can do without"
    )
    group.addoption("--nspawn-full-boot", action="store_true", default=None, help=full_boot)
    parser.addini("nspawn_full_boot", full_boot, type="bool", default=False)
    go_on = "a failed subtest does not end the testScript of a NixOS test"
    group.addoption("--nspawn-continue-subtests", action="store_true", default=None, help=go_on)
    parser.addini("nspawn_continue_subtests", go_on, type="bool", default=False)
    parser.addini(
        "nspawn_nix_tests",
        "NixOS tests to collect: globs of .nix files, relative to this file, with ::NAME one of several of a file",
        type="args",
    )
    group.addoption(
        "--nspawn-shell",
        action="store_true",
        default=False,
        help="when a test fails, open a shell on one of its nodes before they are torn down (not with -n)",
    )


def read_settings(config: pytest.Config) -> Settings:
    """Take each option from the command line, else the ini file, else its default.

    Raises:
        pytest.UsageError: an option's value is malformed; the message says which, where and what it may be.
    """
    shell = bool(config.getoption("nspawn_shell"))
    if shell and (config.getoption("dist", "no") != "no" or hasattr(config, "workerinput")):
        raise pytest.UsageError("--nspawn-shell needs a terminal of its own: leave it out, or run without -n")
    return Settings(
        image=_image(config),
        nixpkgs=_nixpkgs(config),
        manifest=_manifest(config),
        sandbox=cast("Sandbox", _choice(config, "sandbox") or "auto"),
        private_users=cast("PrivateUsers", _choice(config, "private_users") or "auto"),
        skip_unavailable=_choice(config, "unavailable") == "skip",
        keep=cast("Keep", _choice(config, "keep") or "failed"),
        shell=shell,
        boot_timeout=_positive(config, "boot_timeout"),
        timeout_factor=_positive(config, "timeout_factor") or 1.0,
        full_boot=_flag(config, "full_boot"),
        continue_subtests=_flag(config, "continue_subtests"),
    )


def apply_timeout_factor(factor: float) -> None:
    """Stretch every default time-out of this process."""
    timing.set_factor(factor)


def header(settings: Settings) -> str:
    """The line in the header of a run."""
    return f"nspawn: image {settings.image}, sandbox {_sandbox(settings.sandbox)}"


def _sandbox(option: Sandbox) -> str:
    if option != "auto":
        return option
    from pytest_nspawn import host

    try:
        return f"{host.resolve_mode(option)} (auto)"
    except NspawnError:  # why nodes cannot run is said to the test that asks for one
        return option


def _raw(config: pytest.Config, name: str) -> tuple[str | None, str, Path]:
    """An option's text, how the user spells it, and the directory that its paths are relative to."""
    text: Any = config.getoption(f"nspawn_{name}")
    if text is not None:
        return str(text), f"--nspawn-{name.replace('_', '-')}", config.invocation_params.dir
    base = config.inipath.parent if config.inipath is not None else config.invocation_params.dir
    text = config.getini(f"nspawn_{name}")
    where = config.inipath.name if config.inipath is not None else "the ini options"
    return (None if text is None else str(text)), f"nspawn_{name} in {where}", base


def _flag(config: pytest.Config, name: str) -> bool:
    given = config.getoption(f"nspawn_{name}")
    return bool(config.getini(f"nspawn_{name}") if given is None else given)


def _choice(config: pytest.Config, name: str) -> str | None:
    text, source, _base = _raw(config, name)
    choices = _CHOICES[name]
    if text is None or text in choices:
        return text
    raise pytest.UsageError(f"{source}: {text!r} is none of {', '.join(choices)}{suggestion(text, choices)}")


def _positive(config: pytest.Config, name: str) -> float | None:
    text, source, _base = _raw(config, name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise pytest.UsageError(f"{source}: {text!r} is no number above 0, like 30 or 1.5")
    return number


def _image(config: pytest.Config) -> str:
    text, source, base = _raw(config, "image")
    if text is None:
        return Settings().image
    if not text.strip():
        raise pytest.UsageError(f"{source}: {text!r} names no image; the default is {Settings().image!r}")
    kind, colon, argument = text.partition(":")
    if kind == "rootfs":
        if not argument:
            raise pytest.UsageError(
                f"{source}: {text!r} names no directory or tar file, as rootfs:/srv/debian does"
            )
        return f"{kind}{colon}{os.path.abspath(base / os.path.expanduser(argument))}"
    return text


def _nixpkgs(config: pytest.Config) -> str | None:
    """A directory as an absolute path, or a flake reference as it is."""
    text, source, base = _raw(config, "nixpkgs")
    if text is None:
        return None
    if not text.strip():
        raise pytest.UsageError(f"{source}: {text!r} names neither a directory nor a flake")
    path = os.path.abspath(base / os.path.expanduser(text))
    return path if os.path.isdir(path) or text.startswith(("/", "./", "../", "~")) else text


def _manifest(config: pytest.Config) -> Path | None:
    text, source, base = _raw(config, "manifest")
    if text is None:
        return None
    path = Path(os.path.abspath(base / os.path.expanduser(text)))
    if not path.is_file():
        raise pytest.UsageError(f"{source}: there is no file {path}")
    return path


def suggestion(word: str, words: Sequence[str]) -> str:
    """What the user may have meant, as the tail of a message."""
    close = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
