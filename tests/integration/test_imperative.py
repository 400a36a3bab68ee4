"""The command nixos-nspawn in a node, with real systemd and a real Nix; its containers are stand-ins for NixOS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nspawn import Bind, Machine, Node, Topology, process
from pytest_nspawn.cluster import Engine
from pytest_nspawn.imperative import nix as nix_commands
from pytest_nspawn.imperative.container import Container, Source
from pytest_nspawn.imperative.machine import RealMachine

HOME = Path(__file__).resolve().parents[2]

SYSTEMS = """
map (kind: (import {standin}/nixos/lib/eval-config.nix {{
  system = builtins.currentSystem;
  modules = [ {{
    nixpkgs.pkgs = import {standin} {{ }};
    boot.isContainer = true;
    networking.useNetworkd = true;
    environment.etc.kind.text = kind;
  }} ];
}}).config.system.build.toplevel) [ "first" "second" ]
"""


def nix(*argv: str) -> str:
    result = process.run(argv, environment=dict(os.environ))
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def systems(standin: Path) -> list[str]:
    return nix("nix-build", "--no-out-link", "--expr", SYSTEMS.format(standin=standin)).split()


@pytest.fixture(scope="module")
def host(engine: Engine, systems: list[str]) -> Iterator[Machine]:
    """A host whose store is the machine's, with a layer and a database of its own above it."""
    closure = nix("nix-store", "--query", "--requisites", *systems).split()
    node = Node(
        files={"/opt/registration": nix("nix-store", "--dump-db", *closure)},
        binds={
            "/opt/store": Bind("/nix/store", read_only=True),
            "/opt/source": Bind(HOME, read_only=True),
        },
        nspawn_options=["--capability=all"],
        private_users=False,
    )
    with engine.boot(Topology({"host": node})) as nodes:
        machine = nodes["host"]
        machine.succeed(
            "mkdir -p /opt/layer /nix/store",
            "mount -t tmpfs layer /opt/layer && mkdir /opt/layer/upper /opt/layer/work",
            "mount -t overlay -o lowerdir=/opt/store,upperdir=/opt/layer/upper,workdir=/opt/layer/work store /nix/store",
            "nix-store --load-db < /opt/registration",
        )
        yield machine


def command(host: Machine, *words: str) -> str:
    return host.succeed(
        f"cd /opt/source && python3 -m pytest_nspawn.imperative {' '.join(words)}", timeout=120
    )


def kind(host: Machine) -> str:
    leader = "$(machinectl show web --property=Leader --value)"
    return host.succeed(f"nsenter --target {leader} --all --setuid 0 --setgid 0 -- /bin/cat /etc/kind")


def rows(host: Machine) -> list[list[str]]:
    return [line.split() for line in command(host, "list").splitlines()[1:]]


def test_a_container_by_hand_from_its_creation_to_its_end(host: Machine, systems: list[str]) -> None:
    first, second = systems
    assert "systemctl start systemd-nspawn@web.service" in command(
        host, "--dry-run", "create", "web", "--system", first
    )
    assert rows(host) == []

    command(host, "create", "web", "--system", first)
    assert rows(host) == [["web", "active", "1", first]]
    assert host.succeed("machinectl list --no-legend").split()[0] == "web"
    assert kind(host) == "first"
    assert "in-web" in host.succeed(
        "script -qec 'cd /opt/source; python3 -m pytest_nspawn.imperative shell web /bin/echo in-web' /dev/null"
    )
    # networkd's default networking, users of its own.
    host.succeed("ip link show ve-web")
    assert host.succeed("stat -c %u /var/lib/machines/web") != "0\n"
    host.wait_until_succeeds("machinectl show web --property=State | grep running", timeout=30)
    host.succeed("test -d /var/lib/machines/web/nix/var && echo kept > /var/lib/machines/web/root/state")

    command(host, "update", "web", "--system", second)
    assert rows(host) == [["web", "active", "2", second]]
    assert kind(host) == "second"
    assert host.read_text("/var/lib/machines/web/root/state") == "kept\n"

    command(host, "rollback", "web")
    assert rows(host) == [["web", "active", "1", first]]
    assert kind(host) == "first"

    command(host, "stop", "web")
    assert rows(host)[0][1] == "inactive"
    assert host.succeed("machinectl list --no-legend") == ""
    command(host, "start", "web")
    assert kind(host) == "first"
    # Its systems are kept from the garbage collector while it is there.
    assert set(systems) <= set(
        host.succeed("nix-store --query --roots " + first + " && nix-store --gc --print-live").split()
    )

    command(host, "remove", "web")
    assert rows(host) == []
    left = (
        "/var/lib/machines /etc/systemd/nspawn /etc/systemd/system.control /nix/var/nix/profiles/per-nspawn"
    )
    assert host.succeed(f"find {left} -mindepth 1") == ""
    assert host.succeed("systemctl list-units --all --no-legend 'systemd-nspawn@*'") == ""
    assert not set(systems) & set(host.succeed("nix-store --gc --print-live").split())


def test_a_flake_is_built_down_to_its_system(standin: Path, tmp_path: Path) -> None:
    (tmp_path / "flake.nix").write_text(
        """
      { outputs = _: { nixosConfigurations.web.config.system.build.toplevel = derivation {
          name = "system"; system = "SYSTEM"; builder = "/bin/sh"; args = [ "-c" "echo built > $out" ];
      }; }; }
    """.replace("SYSTEM", f"{os.uname().machine}-linux")
    )
    container = Container("web")
    for reference in (f"path:{tmp_path}", f"path:{tmp_path}#web", f"path:{tmp_path}#nixosConfigurations.web"):
        source = Source(flake=reference)
        printed = RealMachine().build(nix_commands.build(container, source, "unused"))
        assert Path(nix_commands.built(source, printed)).read_text() == "built\n"


def test_a_container_that_is_not_there_is_a_clear_error(host: Machine) -> None:
    with pytest.raises(AssertionError) as caught:
        command(host, "start", "nobody")
    assert "there is no container nobody of this command; there are: none" in str(caught.value)
