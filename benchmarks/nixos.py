"""NixOS: a node beside the same system under a bare systemd-nspawn, and one evaluation beside three."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import bare
from benchmarks.run import Row, timed
from pytest_nspawn import Node, Topology
from pytest_nspawn.cluster import Engine, EngineOptions
from pytest_nspawn.naming import plan_wiring
from pytest_nspawn.nixbuild import Builder, nix
from pytest_nspawn.nixbuild.nixpkgs import Nixpkgs
from pytest_nspawn.nixbuild.request import Request, node_request
from pytest_nspawn.nixbuild.systems import HOME
from tests.nix_config import NIX_CONFIG

# What both boot: networkd with an IPv4 and an IPv6 address, and a service.
_SYSTEM = """
{ pkgs, ... }:
{
  networking.firewall.allowedTCPPorts = [ 80 ];
  systemd.services.answer = {
    wantedBy = [ "multi-user.target" ];
    script = "exec sleep 1000";
  };
}
"""
# The other side's own: a container of NixOS as its manual has it, with the same addresses on host0.
_BARE = """
{ ... }:
{
  boot.isContainer = true;
  networking.useNetworkd = true;
  networking.useDHCP = false;
  networking.useHostResolvConf = false;
  networking.hostName = "bare";
  networking.interfaces.host0.ipv4.addresses = [ { address = "192.168.1.1"; prefixLength = 24; } ];
  networking.interfaces.host0.ipv6.addresses = [ { address = "2001:db8:1::1"; prefixLength = 64; } ];
}
"""
_BARE_BUILD = """
{ nixpkgs, modules }:
(import (nixpkgs + "/nixos/lib/eval-config.nix") {
  modules = map (file: /. + file) (builtins.fromJSON modules)
    ++ [ { nixpkgs.pkgs = import (/. + nixpkgs) { config = { }; overlays = [ ]; }; } ];
}).config.system.build.toplevel
"""


def _bare_system(nixpkgs: Path, home: Path) -> str:
    for name, text in {"system.nix": _SYSTEM, "bare.nix": _BARE, "build.nix": _BARE_BUILD}.items():
        (home / name).write_text(text)
    modules = f'["{home}/system.nix", "{home}/bare.nix"]'
    command = ["nix-build", str(home / "build.nix"), "--out-link", str(home / "result")]
    command += ["--argstr", "nixpkgs", str(nixpkgs), "--argstr", "modules", modules]
    built = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    return built.stdout.strip()


def boots(nixpkgs: Path, repeats: int) -> Row:
    """Seconds until a NixOS node is ready, evaluation and build aside, in a sandbox that runs, as in a test run."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, contextlib.ExitStack() as stack:
        system = _bare_system(nixpkgs, Path(directory))
        engine = stack.enter_context(Engine(EngineOptions(nixpkgs=str(nixpkgs))))
        topology = Topology({"node": Node(_SYSTEM)})
        with engine.boot(topology) as cluster:  # built, and the sandbox started
            cluster["node"].succeed("true")
        for _ in range(repeats):
            with bare.BareSystem(system) as node:
                node.wait()
                theirs.append(node.ended - node.began)
            began = time.perf_counter()
            with engine.boot(topology) as cluster:
                cluster["node"].execute("true")
                ours.append(time.perf_counter() - began)
    what = "NixOS node with networkd ready, against the same system under a bare `systemd-nspawn`"
    return Row(what=what, limit=0.45, ours=ours, theirs=theirs)


def evaluations(nixpkgs: Path, repeats: int) -> Row:
    """Seconds of evaluating three nodes at once, against three evaluations of one; nothing is built or remembered."""

    def evaluate(names: str, home: Path) -> None:
        topology = Topology({name: Node(_SYSTEM) for name in names})
        wiring = plan_wiring(topology)
        nodes = {
            name: node_request(name, node, (_SYSTEM,), wiring, None) for name, node in topology.nodes.items()
        }
        request = Request(nixpkgs=Nixpkgs(path=str(nixpkgs)), nodes=nodes).write(home)
        outcome = nix.instantiate(HOME / "evaluate.nix", ["nodes"], {"request": str(request)}, lambda _: None)
        if outcome.output is None:
            raise SystemExit(outcome.log.complaints[0].message)

    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        home = Path(directory)
        evaluate("abc", home)
        for _ in range(repeats):
            ours.append(timed(lambda: evaluate("abc", home)))
            theirs.append(sum(timed(lambda: evaluate(name, home)) for name in "abc"))  # noqa: B023 (called at once)
    return Row(
        what="three nodes in one evaluation, against three of one", limit=0.6, ours=ours, theirs=theirs
    )


def unchanged(nixpkgs: Path, repeats: int) -> Row:
    """Seconds that an unchanged topology of three spends on Nix."""
    builder = Builder(option=str(nixpkgs))
    topology = Topology({name: Node(_SYSTEM) for name in "abc"})
    configs = dict.fromkeys("abc", (_SYSTEM,))
    builder.build(topology, configs, [])
    ours = [timed(lambda: builder.build(topology, configs, [])) for _ in range(repeats)]
    return Row(what="Nix for three unchanged nodes", limit=0.3, ours=ours)


def rows(nixpkgs: Path, repeats: int) -> list[Row]:
    """All that is measured of NixOS."""
    os.environ.setdefault("NIX_CONFIG", NIX_CONFIG)
    return [boots(nixpkgs, repeats), evaluations(nixpkgs, min(repeats, 10)), unchanged(nixpkgs, repeats)]
