"""The modules take what a nixpkgs has: options that it lacks are left out, those that took their place are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from . import debian_nixpkgs
from .given import given_nixpkgs

pytestmark = pytest.mark.nixos

STAND_IN = Path(__file__).with_name("versions.nix")


def evaluated(*, new: bool) -> Any:
    tree = given_nixpkgs()
    return debian_nixpkgs.evaluate(
        f"import {STAND_IN} {{ lib = import {tree}/lib; new = {'true' if new else 'false'}; }}"
    )


def test_a_current_nixpkgs() -> None:
    result = evaluated(new=True)
    containers, host = result["containers"], result["host"]
    assert containers["host"]["boot"] == {
        "isContainer": False,  # follows the other one, in nixpkgs
        "isNspawnContainer": True,
        "nixStoreMountOpts": ["ro"],
    }
    assert containers["closure"]["boot"]["nixStoreMountOpts"] == []
    assert [containers[store]["nix"]["enable"] for store in ("host", "closure", "writable")] == [
        False,
        False,
        True,
    ]
    for each in (host["resolved"], containers["host"]["resolved"]):
        assert each == {"enable": True, "settings": {"Resolve": {"MulticastDNS": True}}}
    assert host["waiting"] == {"enable": False}
    assert host["firewall"] == ["ve-*", "vz-*"]
    assert host["failed"] == []


def test_an_old_nixpkgs() -> None:
    result = evaluated(new=False)
    containers, host = result["containers"], result["host"]
    assert containers["host"]["boot"] == {"isContainer": True}
    assert [containers[store]["nix"]["readOnlyStore"] for store in ("host", "closure", "writable")] == [
        True,
        False,
        False,
    ]
    assert "nix-daemon" in containers["host"]["services"]
    assert containers["writable"]["services"] == ["nixos-nspawn-store"]
    for each in (host["resolved"], containers["host"]["resolved"]):
        assert each == {"enable": True, "extraConfig": "MulticastDNS=yes"}
    assert host["waiting"] == {"enable": False}
    assert host["firewall"] == ["ve-+", "vz-+"]


@pytest.mark.parametrize("new", [True, False])
def test_what_a_container_starts_with_is_the_same_in_all(new: bool) -> None:
    host = evaluated(new=new)["host"]
    assert "Parameters=/nix/store/system/init\n" in host["settings"]
    assert "PrivateUsersOwnership=chown\n" in host["settings"]
    assert host["start"][0] == ""
    assert host["start"][1].endswith('--machine=%i "--load-credential=token:/run/token"')
    assert host["network"]["DHCPServer"] == "yes"
