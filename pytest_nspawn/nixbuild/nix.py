"""Nix's own programs: evaluate to a derivation, and realise it. Works with any Nix from 2.8 on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_nspawn import process
from pytest_nspawn.errors import HostError, NixError
from pytest_nspawn.nixbuild.progress import Log

Status = Callable[[str], None]

_OPTIONS = (
    "--log-format",
    "internal-json",
    "--show-trace",
    # Flake references need it; nothing else here does.
    "--option",
    "extra-experimental-features",
    "nix-command flakes",
    # What may be another one tomorrow is asked for each time: the cache must see that.
    "--option",
    "tarball-ttl",
    "0",
)
_KEPT = (
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "TMPDIR",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call of Nix came to: whether it succeeded, its output's words (those before it failed, too), what it said."""

    ok: bool
    output: Sequence[str]
    log: Log


def environment() -> dict[str, str]:
    """The variables that an evaluation sees, and that its cache is keyed on."""
    return {
        key: value
        for key, value in sorted(os.environ.items())
        if key in _KEPT or key.startswith(("NIX", "GIT_")) or key.lower().endswith("_proxy")
    }


def require(what: str) -> None:
    """Raise HostError where there is no Nix."""
    if shutil.which("nix-instantiate") is None:
        raise HostError(
            problem=f"{what} needs Nix, and there is no nix-instantiate on PATH",
            mend="apt-get install nix-bin, or https://nixos.org/download",
        )


def instantiate(
    file: Path,
    attributes: Sequence[str],
    arguments: Mapping[str, str],
    status: Status,
    *,
    prefix: Sequence[str] = (),
) -> Outcome:
    """Evaluate attributes to their derivations, one after the other; the output is their paths. `prefix` runs it (strace)."""
    words = [word for name, value in arguments.items() for word in ("--argstr", name, value)]
    wanted = [word for attribute in attributes for word in ("--attr", attribute)]
    argv = [*prefix, "nix-instantiate", str(file), *wanted, *words, *_OPTIONS]
    return _call(argv, status, GC_INITIAL_HEAP_SIZE=_heap())


def realise(derivation: str, root: Path, status: Status) -> Outcome:
    """Build a derivation or fetch it; `root` becomes a link to it that keeps it from the garbage collector."""
    argv = ["nix-store", "--realise", derivation, "--add-root", str(root), "--indirect", *_OPTIONS]
    return _call(argv, status)


def binding(derivation: str, name: str) -> str:
    """A variable of a derivation, which need not be built. Raises NixError."""
    argv = ["nix-store", "--query", "--binding", name, derivation]
    result = process.run(argv, environment=environment())
    if result.returncode != 0:
        raise NixError(problem=f"cannot read {derivation}", message=result.stderr.strip())
    return result.stdout


def dependants(derivation: str) -> list[str]:
    """The derivations in the store that need one, directly or not."""
    return process.run(
        ["nix-store", "--query", "--referrers-closure", derivation], environment=environment()
    ).stdout.split()


def _heap() -> str:
    """Bytes that Nix's garbage collector may fill before it first looks for garbage (Boehm GC, GC_INITIAL_HEAP_SIZE).

    A node takes about 200 MB: with Nix's own limit of 384 MiB three nodes take a quarter longer. It is no more than a
    reservation until it is used; never more than a quarter of the machine's memory.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return os.environ.get("GC_INITIAL_HEAP_SIZE") or str(min(memory // 4, 2 << 30))


def _call(argv: Sequence[str], status: Status, **variables: str) -> Outcome:
    log = Log()

    def heard(line: str) -> None:
        log.add(line)
        status(log.status())

    code, output = process.run_aloud(argv, environment=environment() | variables, on_stderr=heard)
    return Outcome(ok=code == 0, output=output.split(), log=log)
