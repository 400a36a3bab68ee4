"""A built NixOS system as image: its `init`, the store, or what it needs of it, and an empty root."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_nspawn import plan
from pytest_nspawn.errors import ConfigError
from pytest_nspawn.images.base import Image, Place
from pytest_nspawn.model import Store
from pytest_nspawn.nixbuild.facts import Facts
from pytest_nspawn.plan import Operation

STORE = "/nix/store/"
_UNITS = "/etc/nspawn/system"
REGISTRATION = "/nix/registration"
"""Where a node with a writable store finds what its database has to know."""


def system_image(text: str, facts: Facts | None = None, *, store: Store = "host") -> Image:
    """The image of a system's store path; with `facts` it is one of the profile's. Raises ConfigError where there is none."""
    path = Path(text)
    if not (path / "init").exists():
        problem = "this store path holds no NixOS system" if path.exists() else "there is no such store path"
        raise ConfigError(problem=problem, value=text, hint="it has to be a `config.system.build.toplevel`")
    wanted = facts.store if facts is not None and store == "host" else store
    paths = _closure(facts, wanted, text)

    def operations(place: Place) -> list[Operation]:
        root, owner = f"{place.disk}/root", place.owner
        # nspawn looks for an OS tree; stage 2 makes the rest.
        directories = ("", "/usr", "/nix", "/nix/store", "/etc")
        return [
            plan.tmpfs(place.disk, size=place.size, owner=owner),
            *(plan.directory(f"{root}{name}", owner=owner) for name in directories),
            plan.bind(root, place.root, read_only=False, recursive=True),
            *_store(wanted, facts, paths, place),
            *([] if facts is not None and facts.interfaces is not None else _hosts(path, place)),
        ]

    return Image(
        description=text,
        operations=operations,
        payload=(str(path / "init"),),
        shifted=(STORE,),
        kept={"root": "root"},
        units=_UNITS,
        enables_networkd=False,
        configures_network=facts is not None and facts.interfaces is not None,
        kernel_arguments=False,
        # NixOS links /etc/systemd/system into the store; the empty last entry stands for the usual path.
        environment={"SYSTEMD_UNIT_PATH": f"{_UNITS}:"},
        shutdown_signal="SIGRTMIN+3",
    )


def _closure(facts: Facts | None, store: Store, system: str) -> list[str]:
    """The paths that a node with a store of its own sees."""
    if store == "host":
        return []
    if facts is None or facts.closure is None:
        raise ConfigError(
            problem=f"store={store!r} needs the closure of the system, which only a NixOS config or a manifest tells",
            value=system,
            hint='leave it out, or give "closure" in a manifest: the path of closureInfo { rootPaths = [ toplevel ]; }',
        )
    return Path(facts.closure, "store-paths").read_text(encoding="utf-8").split()


def _store(store: Store, facts: Facts | None, paths: list[str], place: Place) -> list[Operation]:
    """What is at /nix/store: all of the machine's, the paths of a closure, or an overlay that the node may write to."""
    target = f"{place.root}/nix/store"
    if store == "host":
        return [plan.sealed(STORE, target, idmap=place.idmap)]
    if store == "closure":
        gathered = f"{place.home}/store"
        return [
            plan.directory(gathered),
            plan.store_paths(paths, gathered, idmap=place.idmap),
            # A mount of its own, read-only: stage 2 would lay one without the mounts below over it.
            plan.bind(gathered, target, read_only=True, recursive=True),
        ]
    registration = Path(facts.closure if facts and facts.closure else "", "registration").read_bytes()
    lower, upper, work = f"{place.home}/store", f"{place.disk}/store", f"{place.disk}/store-work"
    return [
        plan.bind(STORE, lower, read_only=True, idmap=place.idmap),
        plan.directory(upper, owner=place.owner, mode=0o1775),
        plan.directory(work),
        plan.overlay(target, lower=lower, upper=upper, work=work),
        # The profile loads it into the node's own database (nix-store --load-db) before systemd starts.
        plan.write_in_root(
            place.root, REGISTRATION, place.content(registration), mode=0o644, owner=place.owner
        ),
    ]


def _hosts(path: Path, place: Place) -> list[Operation]:
    """Lay the nodes' names over the system's own /etc/hosts, which its activation links into the store."""
    own = Path(os.path.realpath(path / "etc/hosts"))
    if not str(own).startswith(STORE) or not own.is_file():
        return []
    text = own.read_text(encoding="utf-8") + "\n" + place.hosts
    laid = f"{place.home}/hosts"
    return [
        plan.write_in_root(place.home, "hosts", place.content(text.encode()), mode=0o644, owner=place.owner),
        plan.bind(laid, f"{place.root}{own}", read_only=True),
    ]
