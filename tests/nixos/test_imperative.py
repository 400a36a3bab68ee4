"""What `nixos-nspawn create --config` builds, from real NixOS modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nspawn.imperative import nix
from pytest_nspawn.imperative.container import Container, Source
from pytest_nspawn.imperative.machine import RealMachine

from .given import buildable_nixpkgs

pytestmark = pytest.mark.nixos


def test_a_configuration_is_built_with_the_container_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nixpkgs = buildable_nixpkgs(monkeypatch)
    config, request = tmp_path / "web.nix", tmp_path / "request.json"
    config.write_text('{ environment.etc.greeting.text = "hello"; }')
    container = Container("web")
    source = Source(config=str(config), nixpkgs=str(nixpkgs))
    request.write_text(nix.request(container, source))
    system = Path(RealMachine().build(nix.build(container, source, str(request))))
    assert (system / "etc/greeting").read_text() == "hello"
    assert (system / "etc/hostname").read_text().strip() == "web"
    assert "Name=host0" in (system / "etc/systemd/network/20-host0.network").read_text()
    assert (system / "init").is_file()
