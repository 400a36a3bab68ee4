"""The declarative modules on real NixOS: each example is the host configuration of a node, its containers run in it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pytest_nspawn import Machine, Node, Topology, process
from pytest_nspawn.cluster import Cluster, Engine, EngineOptions

from .given import buildable_nixpkgs

pytestmark = pytest.mark.nixos

HOME = Path(__file__).resolve().parents[2]
EXAMPLES = HOME / "examples"

# A tree of 2020 asks for pam_lastlog, which newer PAM has not: then nobody can log in.
OLD_TREE = """
{ lib, ... }:
lib.mkIf (lib.versionOlder lib.version "24.05") {
  nixos-nspawn.imports = [ { security.pam.services.login.updateWtmp = lib.mkForce false; } ];
}
"""


@pytest.fixture(scope="module")
def nixpkgs() -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        yield buildable_nixpkgs(patch)


@pytest.fixture(scope="module")
def engine(nixpkgs: Path) -> Iterator[Engine]:
    with Engine(EngineOptions(nixpkgs=str(nixpkgs))) as engine:
        yield engine


def boot(engine: Engine, *configs: str) -> AbstractContextManager[Cluster]:
    """A host of containers: it may do what systemd-nspawn does."""
    node = Node([*configs, OLD_TREE], nspawn_options=["--capability=all"], private_users=False)
    return engine.boot(Topology({"host": node}))


def boot_example(engine: Engine, name: str) -> AbstractContextManager[Cluster]:
    return boot(engine, str(EXAMPLES / f"{name}.nix"))


def inside(host: Machine, container: str, command: str) -> str:
    """What a command prints in a container, as its root."""
    return host.succeed(enter(container, command))


def enter(container: str, command: str) -> str:
    leader = f"$(machinectl show {container} --property=Leader --value)"
    script = f". /etc/profile; set -eu; {command}"
    return f"nsenter --target {leader} --all --setuid 0 --setgid 0 -- /bin/sh -c {shlex.quote(script)}"


def leader(host: Machine, container: str) -> str:
    return host.succeed(f"machinectl show {container} --property=Leader --value").strip()


def wait_for(host: Machine, *containers: str) -> None:
    for container in containers:
        host.wait_for_unit(f"systemd-nspawn@{container}.service", timeout=120)


def test_a_simple_container(engine: Engine) -> None:
    with boot_example(engine, "simple-container") as nodes:
        host = nodes["host"]
        wait_for(host, "simple")
        assert "jq-" in inside(host, "simple", "jq --version")
        assert host.fail("jq --version") is not None

        # systemd's own tools see it.
        assert host.succeed("machinectl list --no-legend").split()[:3] == [
            "simple",
            "container",
            "systemd-nspawn",
        ]
        assert "systemd-nspawn@simple.service" in host.succeed("machinectl status simple --no-pager")
        assert host.succeed("systemctl -M simple is-system-running").strip() == "running"
        assert "Startup finished" in host.succeed("journalctl -M simple --no-pager _PID=1")
        shell = 'machinectl -q shell simple /bin/sh -c "echo in-\\$(hostname)"'
        assert "in-simple" in host.succeed(f"script -qec {shlex.quote(shell)} /dev/null")

        # Its journal is linked to the host's.
        assert "Startup finished" in host.succeed("journalctl --merge --no-pager _HOSTNAME=simple _PID=1")

        # Users of its own; only the store bound, no daemon handed in.
        assert inside(host, "simple", "cat /proc/self/uid_map").split()[1] != "0"
        binds = inside(host, "simple", "findmnt --noheadings --output TARGET,OPTIONS --list")
        assert re.search(r"^/nix/store\s+ro,", binds, re.MULTILINE)
        assert {line.split()[0] for line in binds.splitlines() if line.startswith("/nix")} == {"/nix/store"}
        assert inside(host, "simple", "test ! -e /nix/var/nix/daemon-socket/socket && echo none") == "none\n"

        # No state is kept.
        identity = inside(host, "simple", "cat /etc/machine-id")
        inside(host, "simple", "echo kept > /root/state; echo kept > /var/lib/state")
        host.succeed("machinectl stop simple")
        host.wait_until_fails("machinectl show simple", timeout=60)
        host.succeed("systemctl start systemd-nspawn@simple")
        inside(host, "simple", "test ! -e /root/state && test ! -e /var/lib/state")
        assert inside(host, "simple", "cat /etc/machine-id") == identity
        assert host.succeed("ls /var/lib/machines").strip() == ""


def test_nginx_on_the_host_calls_nginx_in_a_container_by_its_name(engine: Engine) -> None:
    with boot_example(engine, "nginx-reverse-proxy") as nodes:
        host = nodes["host"]
        wait_for(host, "backend")
        host.wait_for_unit("nginx.service")
        host.wait_until_succeeds("curl --fail --silent http://localhost/", timeout=30)
        assert host.succeed("curl --fail --silent http://localhost/") == "hello from the container\n"


def test_static_addresses_on_both_sides(engine: Engine) -> None:
    with boot_example(engine, "static-networking") as nodes:
        host = nodes["host"]
        wait_for(host, "static")
        for address in ("192.168.42.2", "fd42::2"):
            host.wait_until_succeeds(f"ping -c 1 -W 1 {address}", timeout=30)
        for address in ("192.168.42.1", "fd42::1"):
            inside(host, "static", f"ping -c 1 -W 1 {address}")
        addresses = host.succeed("ip -4 -json address show dev ve-static")
        assert [
            each["local"] for each in json.loads(addresses)[0]["addr_info"] if each["scope"] == "global"
        ] == ["192.168.42.1"]


def test_state_in_a_bind_mount_survives_a_restart(engine: Engine) -> None:
    with boot_example(engine, "bind-mounts") as nodes:
        host = nodes["host"]
        wait_for(host, "stateful")
        host.wait_until_succeeds("grep started /var/lib/counter/starts", timeout=30)
        host.succeed("systemctl restart systemd-nspawn@stateful")
        host.wait_until_succeeds("test $(wc -l < /var/lib/counter/starts) = 2", timeout=30)
        # Root's there, though root is somebody else here.
        assert host.succeed("stat -c %u /var/lib/counter/starts") == "0\n"
        assert "NixOS" in inside(host, "stateful", "cat /run/host-release")
        host.fail(enter("stateful", "echo > /run/host-release"))


# A kernel may show bridged packets to netfilter: then masquerading rewrites what the two tell each other.
WITHOUT_MASQUERADE = """
{ nixos-nspawn.containers.one.network.veth.config.host.networkConfig.IPMasquerade = "no"; }
"""


def test_two_containers_in_a_zone_reach_each_other(engine: Engine) -> None:
    with boot(engine, str(EXAMPLES / "zone.nix"), WITHOUT_MASQUERADE) as nodes:
        host = nodes["host"]
        wait_for(host, "one", "two")
        for name in ("one", "two"):  # asked for earlier, the answer "no IPv4" would be remembered
            host.wait_until_succeeds(enter(name, "ip -4 address show dev host0 | grep -q inet"), timeout=60)
        host.wait_until_succeeds(enter("one", "ping -4 -c 1 -W 1 two.local"), timeout=60)
        host.wait_until_succeeds(enter("two", "ping -4 -c 1 -W 1 one.local"), timeout=60)
        bridged = json.loads(host.succeed("ip -json link show master vz-pair"))
        assert {link["ifname"] for link in bridged} == {"vb-one", "vb-two"}
        # What all containers import.
        assert inside(host, "two", "date +%Z").strip() in ("CET", "CEST")
        host.succeed("machinectl stop one two")
        host.wait_until_fails("ip link show vz-pair", timeout=60)


def test_a_credential_reaches_the_service_and_no_store(engine: Engine) -> None:
    with boot_example(engine, "credentials") as nodes:
        host = nodes["host"]
        wait_for(host, "trusted")
        inside(host, "trusted", "systemctl is-active reader.service")
        assert "the token has 9 bytes" in host.succeed(
            "journalctl -M trusted --no-pager --unit reader.service"
        )
        host.fail(
            "grep -rl swordfish /etc/systemd/nspawn/ /etc/systemd/system/systemd-nspawn@trusted.service*"
        )


def test_a_container_sees_only_the_paths_that_it_needs(engine: Engine) -> None:
    with boot_example(engine, "closure-store") as nodes:
        host = nodes["host"]
        wait_for(host, "closed")
        system = inside(host, "closed", "readlink -f /run/current-system").strip()
        seen = set(inside(host, "closed", "ls /nix/store").split())
        bound = set(
            re.findall(
                r"^BindReadOnly=/nix/store/(\S+)$",
                host.read_text("/etc/systemd/nspawn/closed.nspawn"),
                re.MULTILINE,
            )
        )
        assert Path(system).name in seen
        assert seen == bound
        assert Path(host.succeed("readlink -f /run/current-system").strip()).name not in seen
        host.fail(enter("closed", f"touch {system}/file"))


def test_a_nix_daemon_works_in_a_container(engine: Engine) -> None:
    with boot_example(engine, "own-nix") as nodes:
        host = nodes["host"]
        wait_for(host, "builder")
        inside(host, "builder", "systemctl is-active nixos-nspawn-store.service")
        system = inside(host, "builder", "readlink -f /run/current-system").strip()
        assert inside(host, "builder", f"nix-store --query --references {system}").strip()
        inside(host, "builder", "NIX_REMOTE=daemon nix-store --verify")
        expression = 'derivation { name = "built"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo works > $out" ]; }'
        built = inside(
            host, "builder", f"NIX_REMOTE=daemon nix-build --no-out-link -E {shlex.quote(expression)}"
        ).strip()
        assert inside(host, "builder", f"cat {built}") == "works\n"
        # It is the container's own: the host does not have it, and what is not rooted can go.
        host.fail(f"test -e {built}")
        inside(host, "builder", "NIX_REMOTE=daemon nix-store --gc")
        inside(host, "builder", f"test ! -e {built} && test -e {system}/init")


CHANGING = f"""
{{ lib, ... }}:
let
  greeting = text: {{ environment.etc.greeting.text = text; }};
in
{{
  imports = [ {HOME}/host.nix ];
  nixos-nspawn.containers = {{
    changed.config = greeting "before";
    kept.config = greeting "same";
    patient = {{
      config.imports = [ (greeting "before") ];
      restartIfChanged = false;
    }};
  }};
  specialisation.after.configuration.nixos-nspawn.containers = {{
    changed.config = lib.mkForce (greeting "after");
    patient.config = lib.mkForce (greeting "after");
    new.config = greeting "new";
  }};
  specialisation.fewer.configuration.nixos-nspawn.containers = lib.mkForce {{
    kept.config = greeting "same";
  }};
}}
"""


def test_a_switch_restarts_just_what_changed_and_removes_what_is_gone(engine: Engine) -> None:
    with boot(engine, CHANGING) as nodes:
        host = nodes["host"]
        names = ("changed", "kept", "patient")
        wait_for(host, *names)
        before = {name: leader(host, name) for name in names}
        assert inside(host, "changed", "cat /etc/greeting") == "before"
        system = host.succeed("readlink -f /run/current-system").strip()

        host.succeed(f"{system}/specialisation/after/bin/switch-to-configuration test 2>&1", timeout=240)
        wait_for(host, *names, "new")
        after = {name: leader(host, name) for name in names}
        assert {name for name in names if before[name] != after[name]} == {"changed"}
        assert inside(host, "changed", "cat /etc/greeting") == "after"
        assert inside(host, "patient", "cat /etc/greeting") == "before"
        assert inside(host, "new", "cat /etc/greeting") == "new"

        host.succeed(f"{system}/specialisation/fewer/bin/switch-to-configuration test 2>&1", timeout=240)
        assert [line.split()[0] for line in host.succeed("machinectl list --no-legend").splitlines()] == [
            "kept"
        ]
        assert leader(host, "kept") == before["kept"]
        assert host.succeed("ls /run/machines /etc/systemd/nspawn").split() == [
            "/etc/systemd/nspawn:",
            "kept.nspawn",
            "/run/machines:",
            "kept",
        ]
        assert [
            line.split()[0] for line in host.succeed("machinectl list-images --no-legend").splitlines()
        ] == ["kept"]


OTHERS = f"""
{{ pkgs, lib, ... }}:
{{
  imports = [ {HOME}/host.nix ];
  nixos-nspawn.containers = {{
    # The network of the host.
    shared = {{
      network.veth.enable = false;
      config = {{ }};
    }};
    # A system that was built elsewhere; started by hand.
    built = {{
      path = (import (pkgs.path + "/nixos/lib/eval-config.nix") {{
        inherit (pkgs.stdenv.hostPlatform) system;
        modules = [ {HOME}/container.nix {{ networking.hostName = "built"; }} ];
      }}).config.system.build.toplevel;
      autoStart = false;
      privateUsers = false;
      extraOptions = [ "--setenv=FROM=100% $HOME \\"quoted\\"" ];
    }};
  }};
}}
"""


def test_a_container_can_share_the_network_and_be_a_built_system(engine: Engine) -> None:
    with boot(engine, OTHERS) as nodes:
        host = nodes["host"]
        wait_for(host, "shared")
        assert "192.168.1.1" in inside(host, "shared", "ip -4 address show eth1")
        assert host.succeed("machinectl list --no-legend").split()[0] == "shared"
        assert "built" in host.succeed("machinectl list-images --no-legend")
        host.succeed("machinectl start built")
        wait_for(host, "built")
        assert inside(host, "built", "cat /proc/self/uid_map").split()[1] == "0"
        assert (
            inside(host, "built", "tr '\\0' '\\n' < /proc/1/environ | grep ^FROM=")
            == 'FROM=100% $HOME "quoted"\n'
        )
        # It comes back from a reboot of its own, from one of the unit, and from being killed.
        before = leader(host, "built")
        host.succeed("machinectl reboot built")
        host.wait_until_succeeds(
            f"test $(machinectl show built --property=Leader --value) != {before}", timeout=60
        )
        wait_for(host, "built")
        host.succeed("systemctl restart systemd-nspawn@built systemd-nspawn@shared")
        host.succeed("systemctl kill --signal=KILL systemd-nspawn@built")
        host.wait_until_succeeds("systemctl is-failed systemd-nspawn@built", timeout=60)
        host.succeed("systemctl reset-failed systemd-nspawn@built")
        host.succeed("machinectl start built")
        wait_for(host, "built")
        host.succeed("machinectl poweroff built")
        host.wait_until_fails("machinectl show built", timeout=60)
        assert host.succeed("systemctl --failed --no-legend") == ""


BROKEN = """
{{
  neither = {{ }};
  both = {{ config = {{ }}; path = "/nix/store/x"; }};
  "no name" = {{ config = {{ }}; }};
  crowd = {{ config = {{ }}; network.veth.zone = "a-name-too-long"; }};
  alone = {{ config = {{ }}; network.veth = {{ enable = false; zone = "pair"; }}; }};
  vague = {{ path = "/nix/store/x"; store = "closure"; }};
  relative = {{ config = {{ }}; binds."/srv".hostPath = "srv"; }};
  guest = {{ config = {{ assertions = [ {{ assertion = false; message = "said in the guest"; }} ]; }}; }};
}}
"""


def test_every_mistake_has_a_message_that_says_what_to_do(nixpkgs: Path) -> None:
    expression = f"""
      let
        system = import {nixpkgs}/nixos/lib/eval-config.nix {{
          system = builtins.currentSystem;
          modules = [ {HOME}/host.nix {{
            boot.isContainer = true;
            systemd.nspawn.other = {{ }};
            nixos-nspawn.containers = {BROKEN.format()};
          }} ];
        }};
      in builtins.map (each: each.message) (builtins.filter (each: !each.assertion) system.config.assertions)
    """
    result = process.run(["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression])
    assert result.returncode == 0, result.stderr
    messages = [each.strip() for each in json.loads(result.stdout)]
    expected = {
        "neither": "give it a `config`",
        "both": "leave one out",
        "no name": "Use letters, digits and dashes",
        "crowd": "at most 12 letters",
        "alone": "leave out `network.veth.zone`",
        "vague": "Give the derivation itself",
        "relative": "must both begin with a slash",
        "guest": "said in the guest",
    }
    for name, words in expected.items():
        assert any(f"containers.{name}" in message and words in message for message in messages), (
            name,
            messages,
        )
    assert any("systemd.nspawn" in message and "environment.etc" in message for message in messages) or len(
        messages
    ) == len(expected)
