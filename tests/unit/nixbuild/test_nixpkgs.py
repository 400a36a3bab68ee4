from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.nixbuild.nixpkgs import Nixpkgs, find

LOCK = {
    "root": "root",
    "nodes": {
        "root": {"inputs": {"nixpkgs": ["other", "nixpkgs"], "other": "other"}},
        "other": {"inputs": {"nixpkgs": "nixpkgs_2"}},
        "nixpkgs_2": {
            "locked": {
                "type": "github",
                "owner": "NixOS",
                "repo": "nixpkgs",
                "rev": "abc",
                "ref": "main",
                "narHash": "sha256-x+/=",
            }
        },
    },
}


def tree(path: Path) -> Path:
    (path / "nixos/lib").mkdir(parents=True)
    (path / "nixos/lib/eval-config.nix").touch()
    return path


def test_the_option_wins(tmp_path: Path) -> None:
    given = tree(tmp_path / "given")
    (tmp_path / "flake.lock").write_text(json.dumps(LOCK))
    assert find(str(given), [tmp_path], {}) == Nixpkgs(path=str(given))
    assert find("github:NixOS/nixpkgs/x", [tmp_path], {}) == Nixpkgs(flake="github:NixOS/nixpkgs/x")
    assert find("nixpkgs", [tmp_path], {}) == Nixpkgs(flake="nixpkgs")


def test_what_is_in_a_nixpkgs_is_built_with_that(tmp_path: Path) -> None:
    checkout = tree(tmp_path / "nixpkgs")
    (checkout / "flake.nix").touch()
    tests = checkout / "nixos/tests/deep"
    tests.mkdir(parents=True)
    assert find(None, [tests], {"NIX_PATH": f"nixpkgs={tree(tmp_path / 'other')}"}) == Nixpkgs(
        path=str(checkout)
    )


def test_a_lock_file_above_names_a_revision(tmp_path: Path) -> None:
    (tmp_path / "flake.lock").write_text(json.dumps(LOCK))
    (tmp_path / "tests" / "deep").mkdir(parents=True)
    expected = "github:NixOS/nixpkgs/abc?narHash=sha256-x%2B%2F%3D"
    assert find(None, [tmp_path / "tests" / "deep"], {}) == Nixpkgs(flake=expected)


def test_a_lock_file_beyond_the_repository_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "flake.lock").write_text(json.dumps(LOCK))
    (tmp_path / "mine" / ".git").mkdir(parents=True)
    given = tree(tmp_path / "given")
    assert find(None, [tmp_path / "mine"], {"NIX_PATH": f"nixpkgs={given}"}) == Nixpkgs(path=str(given))


@pytest.mark.parametrize(
    ("locked", "expected"),
    [
        ({"type": "path", "path": "../n"}, "path:{home}/../n"),
        ({"type": "git", "url": "file:///n", "rev": "abc"}, "git+file:///n?rev=abc"),
        (
            {"type": "tarball", "url": "https://x/n.tar.gz", "narHash": "h"},
            "tarball+https://x/n.tar.gz?narHash=h",
        ),
    ],
)
def test_kinds_of_locked_inputs(tmp_path: Path, locked: dict[str, str], expected: str) -> None:
    nodes = {"root": {"inputs": {"nixpkgs": "n"}}, "n": {"locked": locked}}
    (tmp_path / "flake.lock").write_text(json.dumps({"root": "root", "nodes": nodes}))
    assert find(None, [tmp_path], {}).flake == expected.format(home=tmp_path)


def test_entries_of_nix_path(tmp_path: Path) -> None:
    home, given = tmp_path / "channels", tree(tmp_path / "channels" / "nixpkgs")
    for text in (f"nixpkgs={given}", f"other=/x:nixpkgs={given}", str(home), f"/nowhere:{home}"):
        assert find(None, [], {"NIX_PATH": text}) == Nixpkgs(path=str(given))
    assert find(None, [], {"NIX_PATH": "nixpkgs=flake:nixpkgs"}) == Nixpkgs(flake="nixpkgs")


def test_the_users_registry(tmp_path: Path) -> None:
    (tmp_path / "nix").mkdir()
    entry = {"from": {"type": "indirect", "id": "nixpkgs"}, "to": {"type": "path", "path": "/x"}}
    (tmp_path / "nix/registry.json").write_text(json.dumps({"version": 2, "flakes": [entry]}))
    assert find(None, [], {"NIX_PATH": "", "XDG_CONFIG_HOME": str(tmp_path)}) == Nixpkgs(flake="nixpkgs")


def test_the_error_lists_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "flake.lock").write_text(json.dumps({"root": "root", "nodes": {"root": {}}}))
    environment = {
        "NIX_PATH": "nixpkgs=/nowhere:nixpkgs=https://x/n.tar.gz",
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    with pytest.raises(ConfigError) as caught:
        find(None, [tmp_path], environment)
    for tried in ("flake.lock (it has no input nixpkgs)", "/nowhere", "https://x/n.tar.gz", "registry.json"):
        assert tried in str(caught.value)
    assert "--nspawn-nixpkgs" in str(caught.value)


def test_a_flake_without_a_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "flake.nix").touch()
    with pytest.raises(ConfigError, match=r"flake\.nix \(it has no flake\.lock"):
        find(None, [tmp_path], {"NIX_PATH": "", "XDG_CONFIG_HOME": str(tmp_path)})


def test_a_broken_lock_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "flake.lock").write_text("{")
    with pytest.raises(ConfigError, match="cannot read this lock file"):
        find(None, [tmp_path], {})
