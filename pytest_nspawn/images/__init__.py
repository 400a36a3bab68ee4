"""What a node's root is made of: each kind of image turns a `Node` into operations and a payload.

    nixos           a NixOS configuration, built by nixbuild/
    host            the machine's own OS, read-only, over an empty root; on NixOS a minimal system
    rootfs:DIR      an OS tree, and rootfs:FILE.tar, one in an archive
    /nix/store/...  a built NixOS system

Another kind is a function of the text after its `name:` that gives an `Image` (hook `pytest_nspawn_image_kinds`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.images.base import Image, Place
from pytest_nspawn.images.host import host_image, is_nixos
from pytest_nspawn.images.rootfs import rootfs_image
from pytest_nspawn.images.system import STORE, system_image
from pytest_nspawn.model import Config, Node, config_kind
from pytest_nspawn.nixbuild import Facts, Manifest, facts_of

__all__ = ["Image", "ImageFactory", "Images", "Place"]

ImageFactory = Callable[[str], Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Finds a node's image; `directories` are where relative paths are looked up, in that order."""

    default: str = "host"
    directories: Sequence[Path] = ()
    kinds: Mapping[str, ImageFactory] | None = None
    manifest: Manifest | None = None

    def of(self, name: str, node: Node, facts: Facts | None = None) -> Image:
        """The image of a node, a NixOS one by the `facts` of its system. Raises ConfigError or HostError."""
        try:
            if facts is not None:
                return system_image(facts.system, facts, store=node.store)
            return self._of(node)
        except ConfigError as error:
            raise replace(error, node=name) from None

    def configs(self, name: str, node: Node) -> tuple[Config, ...] | None:
        """What Nix has to build for a node, with absolute paths; None where that is nothing. Raises ConfigError."""
        try:
            return self._configs(node)
        except ConfigError as error:
            raise replace(error, node=name) from None

    def prebuilt(self, name: str, node: Node) -> Facts | None:
        """A node's system in the manifest: by its config, as it is spelled, or by its own name. Raises ConfigError.

        A node without a config may be in it too, by its name, and has to be where its image is nixos.
        """
        if self.manifest is None or [config_kind(config) for config in node.configs] == ["system"]:
            return None
        if node.configs:
            names = [" ".join(map(str, node.configs)), name]
        elif (node.image or self.default) == "nixos" or (
            node.image is None and name in self.manifest.entries
        ):
            names = [name]
        else:
            return None
        try:
            return facts_of(name, self.manifest.entry(*names))
        except ConfigError as error:
            raise replace(error, node=name) from None

    def _configs(self, node: Node) -> tuple[Config, ...] | None:
        image = node.image or ("nixos" if node.configs else self.default)
        if node.configs and image != "nixos":
            raise ConfigError(
                problem="a node with a config has the image nixos",
                value=image,
                hint="leave out image=, or the config",
            )
        if image == "host" and is_nixos():
            image = "nixos"
        if image != "nixos" or [config_kind(each) for each in node.configs] == ["system"]:
            return None
        return tuple(self._config(each) for each in node.configs)

    def _config(self, config: Config) -> Config:
        kind = config_kind(config)
        if kind == "path":
            return self._existing(str(config), "there is no such config")
        if kind == "flake":
            ref, hash_, attribute = str(config).partition("#")
            if ref in ("", ".", "..") or ref.startswith(("./", "../", "/")):
                ref = str(self._flake(ref or "."))
            return f"{ref}{hash_}{attribute}"
        if kind == "name":
            raise ConfigError(
                problem="no such config",
                value=config,
                hint="a path ends in .nix or has a /, Nix text has a {, and a name is one of --nspawn-manifest",
            )
        if kind == "system":
            raise ConfigError(problem="a built system cannot be one of several configs", value=config)
        return config

    def _flake(self, ref: str) -> Path:
        """The directory of a flake: `.` is the nearest above the test that has a flake.nix, as Nix looks for it."""
        for directory in self.directories or [Path()]:
            start = Path(os.path.abspath(directory / ref))
            for candidate in (start, *start.parents):
                if (candidate / "flake.nix").is_file():
                    return candidate
        listed = ", ".join(str(directory) for directory in self.directories)
        raise ConfigError(problem="there is no flake.nix", value=ref, hint=f"looked in {listed} and above")

    def _of(self, node: Node) -> Image:
        text = str(node.configs[0]) if node.configs else node.image or self.default
        if text.startswith(STORE):
            return system_image(text, store=node.store)
        if node.store != "host":
            raise ConfigError(
                problem=f"store={node.store!r} is for NixOS nodes, and this image has no Nix store",
                value=text,
                hint="leave it out, or give a NixOS config",
            )
        return self._named(text)

    def _named(self, text: str) -> Image:
        kind, _, argument = text.partition(":")
        if text == "host":
            return host_image()
        if kind == "rootfs" and argument:
            return rootfs_image(self._existing(argument, "there is no such root file system"))
        factory = (self.kinds or {}).get(kind)
        if factory is not None:
            return factory(argument)
        known = ["nixos", "host", "rootfs:DIR", "rootfs:FILE.tar", f"{STORE}...", *(self.kinds or {})]
        raise ConfigError(problem="no such kind of image", value=text, hint=f"known are {', '.join(known)}")

    def _existing(self, text: str, problem: str) -> Path:
        tried = [Path(os.path.abspath(directory / text)) for directory in self.directories or [Path()]]
        for path in dict.fromkeys(tried):
            try:
                if path.exists():
                    return path
            except OSError as error:  # a name that no file system takes
                raise ConfigError(
                    problem=f"{problem} ({error.strerror})", value=text, hint="give a path that exists"
                ) from None
        listed = ", ".join(map(str, dict.fromkeys(tried)))
        raise ConfigError(problem=problem, value=text, hint=f"tried: {listed}")
