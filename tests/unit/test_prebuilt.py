"""Which entry of a manifest a node is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nspawn import Node
from pytest_nspawn.errors import ConfigError
from pytest_nspawn.images import Images
from pytest_nspawn.nixbuild import Manifest

ENTRIES = {"web": "/nix/store/by-name", "./web.nix": "/nix/store/by-config"}


def images(default: str = "host") -> Images:
    return Images(default=default, manifest=Manifest(path=Path("manifest.json"), entries=ENTRIES))


@pytest.mark.parametrize(
    ("name", "node", "system"),
    [
        pytest.param("web", Node("./web.nix"), "/nix/store/by-config", id="by its config"),
        pytest.param("web", Node("../other.nix"), "/nix/store/by-name", id="by its name"),
        pytest.param("web", Node(), "/nix/store/by-name", id="without a config"),
        pytest.param("web", Node(image="nixos"), "/nix/store/by-name", id="an image of NixOS"),
    ],
)
def test_an_entry_is_found(name: str, node: Node, system: str) -> None:
    found = images().prebuilt(name, node)
    assert found is not None
    assert found.system == system


@pytest.mark.parametrize(
    ("name", "node"),
    [
        pytest.param("client", Node(), id="in none"),
        pytest.param("web", Node(image="host"), id="another image"),
        pytest.param("web", Node("/nix/store/x-system"), id="a system"),
    ],
)
def test_a_node_needs_no_entry(name: str, node: Node) -> None:
    assert images().prebuilt(name, node) is None


@pytest.mark.parametrize(
    ("node", "default"),
    [
        pytest.param(Node("./client.nix"), "host", id="a config"),
        pytest.param(Node(), "nixos", id="the default image"),
    ],
)
def test_a_node_has_to_have_an_entry(node: Node, default: str) -> None:
    with pytest.raises(ConfigError, match="node 'client': the manifest has no such entry"):
        images(default).prebuilt("client", node)
