"""Builder of the derivation `packages`: a directory of links a package, laid out as NixOS modules expect.

Called as `farm.py DEBIAN SPECIFICATION OUT`; the specification is JSON, package name -> a mapping of
`debs`: Debian packages whose files become bin, lib, libexec, share, include and etc (`without`: but for these);
`links`: path in the package -> path in the tree; `children`: directory -> directory of the tree, link by link;
`texts`: path -> content (of an executable, if in bin); `directories`: empty ones.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MULTIARCH = re.compile(r"usr/lib/[^/]+-linux-[^/]+/")


class Tree:
    """A patched Debian tree in the store, with dpkg's knowledge of who owns a file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.alternatives = self._alternatives()

    def owned(self, deb: str) -> Sequence[str]:
        info = self.root / "var/lib/dpkg/info"
        lists = [info / f"{deb}.list", *info.glob(f"{deb}:*.list")]
        found = next((path for path in lists if path.exists()), None)
        if found is None:
            message = f"the Debian tree has no package {deb}"
            raise SystemExit(message)
        paths = [self._merged(line[1:]) for line in found.read_text().splitlines()]
        return [path for path in paths if os.path.lexists(self.root / path)]

    def names(self, deb: str) -> Sequence[str]:
        """The package's files, and the links by which update-alternatives calls them."""
        owned = self.owned(deb)
        return [*owned, *(name for path in owned for name in self.alternatives.get(path, ()))]

    @staticmethod
    def _merged(path: str) -> str:
        return f"usr/{path}" if path.split("/", 1)[0] in {"bin", "sbin", "lib", "lib64"} else path

    def _alternatives(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        for directory in ("usr/bin", "usr/sbin"):
            for path in (self.root / directory).iterdir():
                if path.is_symlink() and "/etc/alternatives/" in os.readlink(path) and path.exists():
                    target = str(path.resolve().relative_to(self.root))
                    found.setdefault(target, []).append(str(path.relative_to(self.root)))
        return found


def place(path: str) -> str | None:
    """Where a file of Debian's is in a package of nixpkgs'."""
    if path.startswith(("usr/sbin/", "usr/bin/")):
        return f"bin/{path.split('/', 2)[2]}"
    if MULTIARCH.match(path):
        return MULTIARCH.sub("lib/", path, count=1)
    for directory in ("usr/lib/", "usr/libexec/", "usr/share/", "usr/include/"):
        if path.startswith(directory):
            return path.removeprefix("usr/")
    return path if path.startswith("etc/") else None


def is_within(path: str, places: Sequence[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def link(target: Path, name: Path) -> None:
    name.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(name):
        name.symlink_to(target)


def make(tree: Tree, out: Path, spec: Mapping[str, Any]) -> None:
    out.mkdir(parents=True)
    for name, target in spec.get("links", {}).items():
        if not os.path.lexists(tree.root / target):
            message = f"{out.name}: the Debian tree has no {target}"
            raise SystemExit(message)
        link(tree.root / target, out / name)
    for name, text in spec.get("texts", {}).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
        (out / name).chmod(0o555 if name.startswith("bin/") else 0o444)
    without = spec.get("without", ())
    for name, source in spec.get("children", {}).items():
        for child in sorted((tree.root / source).iterdir()):
            if is_within(f"{name}/{child.name}", without):
                continue
            # A link beside its target is a unit's other name, for systemd only as long as it stays one.
            alias = child.is_symlink() and "/" not in os.readlink(child)
            link(Path(os.readlink(child)) if alias else child, out / name / child.name)
    for deb in spec.get("debs", ()):
        for path in tree.names(deb):
            where = place(path)
            source = tree.root / path
            if where is None or is_within(where, without) or (source.is_dir() and not source.is_symlink()):
                continue
            link(source, out / where)
    for name in spec.get("directories", ()):
        (out / name).mkdir(parents=True, exist_ok=True)
    if (out / "bin").exists():
        link(Path("bin"), out / "sbin")


def main() -> None:
    tree, out = Tree(Path(sys.argv[1])), Path(sys.argv[3])
    for name, spec in json.loads(Path(sys.argv[2]).read_text()).items():
        make(tree, out / name, spec)


if __name__ == "__main__":
    main()
