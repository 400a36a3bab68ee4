"""The README's NixOS example, word for word, on real NixOS."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from .given import buildable_nixpkgs

pytestmark = pytest.mark.nixos

HOME = Path(__file__).resolve().parents[2]


def test_the_example_passes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    nixpkgs = buildable_nixpkgs(monkeypatch)
    blocks = re.findall(r"```python\n(.*?)```", (HOME / "README.md").read_text(), re.DOTALL)
    [example] = [block for block in blocks if "fixtures/web_server.nix" in block]
    (pytester.path / "fixtures").mkdir()
    shutil.copy(HOME / "fixtures/web_server.nix", pytester.path / "fixtures")
    head = "import pytest\nfrom pytest_nspawn import Machine, Node\n"
    # nginx of older releases is active before it listens.
    body = example.replace('wait_for_unit("nginx.service")', "wait_for_open_port(80)")
    pytester.makepyfile(test_readme=head + body)
    arguments = ("-p", "no:cacheprovider", f"--nspawn-nixpkgs={nixpkgs}")
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=1)
