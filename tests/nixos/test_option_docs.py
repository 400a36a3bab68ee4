"""docs/options.md says what the modules say."""

from __future__ import annotations

import pytest

from tools.option_docs import PAGE, read_options, render

from .given import given_nixpkgs

pytestmark = pytest.mark.nixos


def test_the_page_is_up_to_date() -> None:
    assert render(read_options(given_nixpkgs())) == PAGE.read_text(encoding="utf-8"), (
        "make it again: python -m tools.option_docs NIXPKGS"
    )
