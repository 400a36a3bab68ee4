"""Which image a node gets, and what Nix is asked for: nothing is built or booted."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nspawn import ConfigError, Node, images
from pytest_nspawn.images import Images
from pytest_nspawn.model import Store


def test_a_node_without_a_config_needs_no_nix() -> None:
    assert Images().configs("one", Node()) is None
    assert Images(default="nixos").configs("one", Node()) == ()


def test_on_nixos_the_machines_own_system_is_a_minimal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "is_nixos", lambda: True)
    assert Images().configs("one", Node()) == ()
    assert Images().configs("one", Node(image="host")) == ()
    assert Images(default="rootfs:/srv").configs("one", Node()) is None


def test_configs_are_found_beside_the_test_then_at_rootdir(tmp_path: Path) -> None:
    for name in ("beside", "root"):
        (tmp_path / name).mkdir()
    (tmp_path / "root" / "web.nix").touch()
    found = Images(directories=[tmp_path / "beside", tmp_path / "root"])
    assert found.configs("web", Node("web.nix")) == (tmp_path / "root" / "web.nix",)
    (tmp_path / "beside" / "web.nix").touch()
    assert found.configs("web", Node(["web.nix", "{ }"])) == (tmp_path / "beside" / "web.nix", "{ }")


def test_a_flake_is_the_nearest_above(tmp_path: Path) -> None:
    (tmp_path / "flake.nix").touch()
    (tmp_path / "tests").mkdir()
    found = Images(directories=[tmp_path / "tests"])
    assert found.configs("web", Node(".#nixosConfigurations.web")) == (f"{tmp_path}#nixosConfigurations.web",)
    reference = "github:owner/repo#nixosConfigurations.web"
    assert found.configs("web", Node(reference)) == (reference,)


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (Node("missing.nix"), "there is no such config"),
        (Node("web"), "no such config: 'web'"),
        (Node("{ }", image="host"), "a node with a config has the image nixos"),
        (Node(["/nix/store/x-system", "{ }"]), "a built system cannot be one of several configs"),
        (Node(".#x"), "there is no flake.nix"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, node: Node, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Images(directories=[tmp_path]).configs("web", node)
    assert "node 'web'" in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize("store", ["closure", "writable"])
def test_a_store_that_cannot_be_given_is_an_error(tmp_path: Path, store: Store) -> None:
    for node in (Node(store=store), Node(image="rootfs:/srv", store=store)):
        with pytest.raises(ConfigError, match="is for NixOS nodes"):
            Images().of("one", node)
    (tmp_path / "init").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "STORE", f"{tmp_path}/")
        with pytest.raises(ConfigError, match="needs the closure of the system"):
            Images().of("one", Node(image=f"{tmp_path}/", store=store))
