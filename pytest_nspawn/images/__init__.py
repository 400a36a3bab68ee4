"""What a node's root is made of: each kind of image turns a `Node` into operations and a payload.

    host            the machine's own OS, read-only, over an empty root
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
from pytest_nspawn.images.host import host_image
from pytest_nspawn.images.rootfs import rootfs_image
from pytest_nspawn.images.system import STORE, system_image
from pytest_nspawn.model import Node, config_kind

__all__ = ["Image", "ImageFactory", "Images", "Place"]

ImageFactory = Callable[[str], Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Finds a node's image; `directories` are where relative paths are looked up, in that order."""

    default: str = "host"
    directories: Sequence[Path] = ()
    kinds: Mapping[str, ImageFactory] | None = None

    def of(self, name: str, node: Node) -> Image:
        """The image of a node. Raises ConfigError or HostError, before anything boots."""
        try:
            return self._of(node)
        except ConfigError as error:
            raise replace(error, node=name) from None

    def _of(self, node: Node) -> Image:
        if node.config is None:
            return self._named(node.image or self.default)
        if len(node.configs) == 1 and config_kind(node.configs[0]) == "system":
            return system_image(str(node.configs[0]))
        for config in node.configs:
            if config_kind(config) == "path":
                self._existing(str(config), "there is no such config")
        raise ConfigError(
            problem="NixOS configurations are not built yet by this version",
            value=node.config if isinstance(node.config, str | Path) else list(map(str, node.configs)),
            hint="give the store path of a built system, or an image",
        )

    def _named(self, text: str) -> Image:
        kind, _, argument = text.partition(":")
        if text.startswith(STORE):
            return system_image(text)
        if text == "host":
            return host_image()
        if kind == "rootfs" and argument:
            return rootfs_image(self._existing(argument, "there is no such root file system"))
        factory = (self.kinds or {}).get(kind)
        if factory is not None:
            return factory(argument)
        known = ["host", "rootfs:DIR", "rootfs:FILE.tar", f"{STORE}...", *(self.kinds or {})]
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
