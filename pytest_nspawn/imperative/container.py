"""One container by its name: where systemd and Nix keep it, and the files that make it one."""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from pathlib import PurePosixPath as Path

from pytest_nspawn.errors import ConfigError

_NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?")
_SECTION = "X-NixOS"  # systemd passes over sections that begin with X-

PROFILES = Path("/nix/var/nix/profiles/per-nspawn")
SETTINGS = (Path("/etc/systemd/nspawn"), Path("/run/systemd/nspawn"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a container's system is built from: a NixOS module, a flake, or nothing, it is there already."""

    config: str | None = None
    flake: str | None = None
    system: str | None = None
    nixpkgs: str | None = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.config, self.flake, self.system)) != 1:
            raise ConfigError(problem="give one of --config, --flake and --system")
        if any(each is not None and "\n" in each for each in (self.config, self.flake, self.nixpkgs)):
            raise ConfigError(
                problem="a path or reference of more than one line cannot be kept in systemd's files"
            )


@dataclass(frozen=True, slots=True)
class Container:
    """Names and paths. Raises ConfigError where the name is none of a machine."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                problem=f"{self.name!r} is no name of a container: use letters, digits and dashes, at most 64"
            )

    @property
    def unit(self) -> str:
        """Systemd's own instance."""
        return f"systemd-nspawn@{self.name}.service"

    @property
    def root(self) -> Path:
        """What the container writes is kept here, until it is removed."""
        return Path("/var/lib/machines", self.name)

    @property
    def profile(self) -> Path:
        """Its systems, generation by generation."""
        return PROFILES / self.name

    @property
    def drop_in(self) -> Path:
        """Where `systemctl set-property` writes too: on NixOS /etc/systemd/system is a part of the store."""
        return Path("/etc/systemd/system.control", f"{self.unit}.d", "50-nixos-nspawn.conf")

    def settings(self, directory: Path) -> Path:
        """The .nspawn file, in one of SETTINGS."""
        return directory / f"{self.name}.nspawn"

    def settings_text(self, source: Source) -> str:
        """The .nspawn file: the same for every generation, as it names the profile, not the system."""
        kept = {"Config": source.config, "Flake": source.flake, "Nixpkgs": source.nixpkgs}
        lines = [
            "[Exec]",
            "Boot=no",
            "Parameters=/nix/system/init",
            "KillSignal=SIGRTMIN+3",
            "NotifyReady=yes",
            "PrivateUsers=pick",
            "ResolvConf=off",
            "Timezone=off",
            "",
            "[Files]",
            "BindReadOnly=/nix/store",
            f"BindReadOnly={self.profile}:/nix/system",
            "",
            f"[{_SECTION}]",
            *(f"{key}={value}" for key, value in kept.items() if value is not None),
        ]
        return "\n".join(lines) + "\n"


DROP_IN = """\
[Service]
# systemd-nspawn looks for the container's systemd in /usr/lib, finds none, and would choose cgroup v1.
Environment=SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
"""


def source_of(settings: str) -> Source | None:
    """What a container was last made from, as its .nspawn file says; None where it says nothing."""
    # Keys may stand more than once in systemd's files.
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.read_string(settings)
    if not parser.has_section(_SECTION):
        return None
    kept = dict(parser.items(_SECTION))
    if "config" not in kept and "flake" not in kept:
        return None
    return Source(config=kept.get("config"), flake=kept.get("flake"), nixpkgs=kept.get("nixpkgs"))


def is_ours(settings: str) -> bool:
    """Whether a .nspawn file is from this command."""
    return f"[{_SECTION}]" in settings.splitlines()
