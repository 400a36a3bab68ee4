"""docs/options.md says what the modules say."""

from __future__ import annotations

import shutil

import pytest

from tools.option_docs import PAGE, read_options, render

from . import debian_nixpkgs

pytestmark = pytest.mark.nixos


def test_the_page_is_up_to_date() -> None:
    nixpkgs = debian_nixpkgs.given_nixpkgs()
    if nixpkgs is None:
        pytest.skip("NSPAWN_TEST_NIXPKGS names no nixpkgs tree")
    if shutil.which("nix-instantiate") is None:
        pytest.skip("there is no Nix on PATH")
    assert render(read_options(nixpkgs)) == PAGE.read_text(encoding="utf-8"), (
        "make it again: python -m tools.option_docs NIXPKGS"
    )
