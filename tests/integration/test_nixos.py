"""NixOS configurations as nodes, from evaluation to a booted node, with the stand-in and, where one is given, real nixpkgs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nspawn import Network, Node, Topology, process
from pytest_nspawn.cluster import Cluster, Engine, EngineOptions
from pytest_nspawn.errors import ConfigError, NixError

WEB = """
{ pkgs, nodes, ... }:
{
  imports = [ ./common.nix ];
  networking.firewall.allowedTCPPorts = [ 80 ];
  virtualisation.memorySize = 300;
  environment.etc."peer".text =
    "${nodes.client.networking.primaryIPAddress} ${nodes.client.config.networking.hostName} ${nodes.plain.networking.primaryIPAddress}";
  systemd.sockets.web = {
    wantedBy = [ "sockets.target" ];
    listenStreams = [ "80" "81" ];
    socketConfig.Accept = true;
  };
  systemd.services."web@" = {
    serviceConfig = { StandardInput = "socket"; StandardOutput = "socket"; };
    script = ''
      while read -r line && [ "$line" != $'\\r' ]; do :; done
      printf 'HTTP/1.0 200 OK\\r\\n\\r\\n'
      cat /etc/peer
    '';
  };
  specialisation.other.configuration.environment.etc."which".text = "other";
}
"""
COMMON = '{ users.users.alice = { isNormalUser = true; extraGroups = [ "wheel" ]; }; }'
CLIENT = '{ greeting, pkgs, ... }: { environment.systemPackages = [ pkgs.curl ]; networking.domain = "example.org"; environment.etc.greeting.text = greeting; }'


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("configs")
    (home / "web.nix").write_text(WEB)
    (home / "common.nix").write_text(COMMON)
    return home


@pytest.fixture(scope="module")
def nodes(nix_engine: Engine, configs: Path) -> Iterator[Cluster]:
    """A file, Nix text with a list and arguments, and a node that is no NixOS."""
    topology = Topology(
        {
            "web": Node("web.nix", networks=["front", 1]),
            "client": Node(
                [CLIENT, "{ virtualisation.vlans = [ 1 7 ]; }"], special_args={"greeting": "hello"}
            ),
            "plain": Node(),
        },
        {"front": Network("10.9.0.0/24")},
    )
    with nix_engine.boot(topology, directories=[configs]) as cluster:
        yield cluster


def test_a_configuration_boots_well(nodes: Cluster) -> None:
    for name in ("web", "client"):
        assert nodes[name].succeed("systemctl is-system-running --wait").strip() == "running"
        assert nodes[name].succeed("systemctl --failed --no-legend") == ""


def test_nodes_know_each_other_in_their_modules(nodes: Cluster) -> None:
    assert nodes["web"].read_text("/etc/peer") == "192.168.1.1 client 192.168.1.2"
    assert nodes["client"].read_text("/etc/greeting") == "hello"


def test_addresses_are_those_of_the_topology(nodes: Cluster) -> None:
    assert "10.9.0.3/24" in nodes["web"].succeed("ip -4 addr show eth1")
    assert "192.168.1.3/24" in nodes["web"].succeed("ip -4 addr show eth2")
    assert "2001:db8:7::1/64" in nodes["client"].succeed("ip -6 addr show eth2")
    assert set(nodes.networks) == {"front", 1, 7}


def test_every_node_has_every_name(nodes: Cluster) -> None:
    for name in ("web", "plain"):
        assert nodes[name].succeed("getent ahostsv4 client.example.org").split()[0] == "192.168.1.1"
    # web is in `front` first; the others reach it in the network that they share.
    for name in ("client", "plain"):
        assert nodes[name].succeed("getent ahostsv4 web").split()[0] == "192.168.1.3"


def test_the_firewall_lets_in_what_it_says(nodes: Cluster) -> None:
    nodes["web"].wait_for_open_port(80, timeout=60)
    nodes["web"].wait_for_open_port(81, timeout=60)
    assert "client" in nodes["client"].succeed("curl --fail --silent http://web/peer")
    assert "client" in nodes["plain"].succeed("curl --fail --silent http://web/peer")
    nodes["client"].fail("curl --silent --max-time 0.5 http://web:81/peer")
    assert nodes.facts["web"].firewall == {
        "enable": True,
        "allowedTCPPorts": [80],
        "allowedUDPPorts": [],
    }


def test_users_and_the_login_environment(nodes: Cluster) -> None:
    assert nodes["web"].succeed("id -nG alice").split() == ["users", "wheel"]
    assert nodes["web"].run("echo $HOME", user="alice").stdout == "/home/alice\n"
    assert nodes["web"].succeed("echo $PATH").count("/run/current-system/sw/bin") == 1


def test_a_switch_keeps_the_names_and_a_reboot_goes_back(nodes: Cluster) -> None:
    web = nodes["web"]
    before = web.read_text("/etc/hosts")
    web.succeed("/run/current-system/specialisation/other/bin/switch-to-configuration test")
    assert web.read_text("/etc/which") == "other"
    assert web.read_text("/etc/hosts") == before
    web.succeed("logger --tag marked before the reboot")
    web.reboot()
    assert not web.exists("/etc/which")
    assert "before the reboot" in web.succeed("journalctl --boot=-1 --identifier=marked --output=cat")


def test_another_system_of_the_same_store_is_activated(nodes: Cluster, nix_engine: Engine) -> None:
    with nix_engine.boot(Topology({"client": Node('{ environment.etc."which".text = "newer"; }')})) as other:
        system = other.facts["client"].system
    nodes["client"].succeed(f"{system}/bin/switch-to-configuration test")
    assert nodes["client"].read_text("/etc/which") == "newer"
    assert nodes["client"].succeed("readlink /run/current-system").strip() == system


def test_the_memory_of_a_configuration_is_a_limit(nodes: Cluster, nix_engine: Engine) -> None:
    # What it is a limit of is in test_images; here, that the engine asks for it: MiB, and the root beside it.
    limited = nix_engine.configured("web", Node(), nodes.facts["web"])
    assert limited.memory in (f"{300 + 1024}M", None)
    assert nix_engine.configured("web", Node(memory="50M"), nodes.facts["web"]).memory == "50M"


MACHINE = """
{
  virtualisation.diskSize = 1500;
  virtualisation.credentials = { motto.text = "open sesame"; token.source = "TOKEN"; };
  virtualisation.sharedDirectories.data = { source = "$SHARED/data"; target = "/data"; };
  systemd.services.keeper.serviceConfig = { Type = "oneshot"; ImportCredential = "motto"; LoadCredential = "token"; };
}
"""


def test_what_a_configuration_says_of_its_machine(
    nix_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/old").write_text("from the machine")
    (tmp_path / "token").write_bytes(b"secret")
    monkeypatch.setenv("SHARED", str(tmp_path))
    config = MACHINE.replace("TOKEN", str(tmp_path / "token"))
    with nix_engine.boot(Topology({"one": Node(config, credentials={"motto": "mine"})})) as cluster:
        one = cluster["one"]
        assert (
            one.succeed("cat /run/credentials/@system/motto /run/credentials/@system/token") == "minesecret"
        )
        assert one.succeed("cat /data/old") == "from the machine"
        one.succeed("echo -n new > /data/new", "test $(stat --format=%u /data/new) = 0")
        assert (tmp_path / "data/new").read_text() == "new"
        one.succeed("head -c 1100M /dev/zero > /root/large")
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigError, match=r"node 'one': virtualisation\.credentials: cannot read token"):
        nix_engine.boot(Topology({"one": Node(config)}))
    monkeypatch.setenv("SHARED", "/absent")
    (tmp_path / "token").touch()
    with pytest.raises(
        ConfigError, match=r"virtualisation\.sharedDirectories: there is nothing to show at /data"
    ):
        nix_engine.boot(Topology({"one": Node(config)}))


def test_options_of_virtual_machines_are_told(nix_engine: Engine) -> None:
    config = """
        { lib, pkgs, ... }:
        {
          virtualisation.cores = 4;
          virtualisation.qemu = {
            package = pkgs.hello;
            guestAgent.enable = false;
            options = [ "-vga none" ];
            drives = lib.mkIf false [ { file = "disk"; } ];
          };
          boot.kernelModules = [ "loop" ];
          boot.kernelParams = [ "quiet" "console=tty0" "rd.debug" "vsyscall=emulate" ] ++ lib.optional false "iommu=off";
          virtualisation.fileSystems."/on-disk" = { device = "/dev/vdb"; fsType = "ext4"; autoFormat = true; };
        }
    """
    with nix_engine.boot(Topology({"one": Node(config)}), start=False) as cluster:
        assert cluster.facts["one"].vm_only == (
            "boot.kernelModules",
            "virtualisation.qemu.options",
            "boot.kernelParams vsyscall=emulate",
            "virtualisation.fileSystems /on-disk",
        )


def test_file_systems_without_a_disk_are_mounted(nix_engine: Engine) -> None:
    config = """
        { lib, ... }:
        {
          virtualisation.fileSystems = {
            "/scratch" = { fsType = "tmpfs"; options = [ "size=1M" "mode=0750" ]; };
            "/srv/again" = { device = "/etc"; options = [ "bind" ]; neededForBoot = true; };
          };
          fileSystems."/scratch".device = "/dev/disk/by-label/scratch";
        }
    """
    with nix_engine.boot(Topology({"one": Node(config)})) as cluster:
        one = cluster["one"]
        assert cluster.facts["one"].vm_only == ()
        assert one.succeed("findmnt --noheadings --output FSTYPE /scratch") == "tmpfs\n"
        assert one.succeed("stat --format=%a /scratch") == "750\n"
        one.fail("head -c 2M /dev/zero > /scratch/large")
        assert one.succeed("cat /srv/again/hostname") == "one\n"


def test_an_interface_has_the_name_that_the_configuration_says(nix_engine: Engine) -> None:
    config = "{ virtualisation.vlans = [ 1 ]; virtualisation.interfaces = { lan0 = { vlan = 2; assignIP = true; }; raw0.vlan = 3; }; }"
    with nix_engine.boot(Topology({"one": Node(config)})) as cluster:
        one = cluster["one"]
        assert "192.168.2.1/24" in one.succeed("ip -4 addr show lan0")
        assert one.succeed("ip -4 -brief addr show raw0").split()[2:] == []
        assert "192.168.1.1/24" in one.succeed("ip -4 addr show eth1")


def test_a_name_that_systemd_takes_for_none(nix_engine: Engine) -> None:
    nodes = {"one_two": Node('{ networking.hostName = "one_two"; }'), "other": Node("{ }")}
    with nix_engine.boot(Topology(nodes)) as cluster:
        assert cluster["one_two"].succeed("cat /etc/hostname") == "one_two\n"
        assert "192.168.1.1" in cluster["other"].succeed("getent ahostsv4 one_two")


def test_the_image_nixos_needs_no_config(nix_engine: Engine) -> None:
    with nix_engine.boot(Topology({"one": Node(image="nixos")})) as cluster:
        assert cluster["one"].succeed(". /etc/os-release; echo $ID") == "nixos\n"


@pytest.mark.parametrize("private_users", [True, False])
def test_a_node_sees_the_paths_of_its_closure_only(nix_engine: Engine, private_users: bool) -> None:
    with nix_engine.boot(
        Topology({"one": Node("{ }", store="closure", private_users=private_users)})
    ) as cluster:
        closure = Path(str(cluster.facts["one"].closure), "store-paths").read_text().split()
        seen = cluster["one"].succeed("ls -d /nix/store/*").split()
        assert sorted(seen) == sorted(closure)
        system = cluster.facts["one"].system
        before = {path: Path(path).lstat().st_mtime_ns for path in closure}
        cluster["one"].fail(f"touch {system}/new")
        cluster["one"].fail(f"mount -o remount,bind,rw {system} && touch {system}/new")
        # What is no directory may be a copy of the node's own: the machine's stays as it is.
        cluster["one"].execute(f"touch {' '.join(closure)}")
        assert {path: Path(path).lstat().st_mtime_ns for path in closure} == before


@pytest.mark.parametrize("private_users", [True, False])
def test_a_node_builds_in_a_store_of_its_own(nix_engine: Engine, private_users: bool) -> None:
    expression = (
        'derivation { name = "made-in-a-node"; system = "x86_64-linux"; builder = "/bin/sh"; '
        'args = [ "-c" "echo made > $out" ]; }'
    )
    with nix_engine.boot(
        Topology({"one": Node("{ }", store="writable", private_users=private_users)})
    ) as cluster:
        one = cluster["one"]
        one.succeed("nix-store --verify --check-contents")
        assert one.succeed("nix-store --query --requisites /run/current-system").count("/nix/store/") > 10
        path = one.succeed(
            f"nix --extra-experimental-features nix-command build --impure --no-link --print-out-paths --expr '{expression}'"
        ).strip()
        assert one.read_text(path) == "made\n"
        assert not Path(path).exists()
        one.reboot()
        one.succeed(f"nix-store --verify && nix-store --query --hash {path}")


def test_a_flake_gives_a_system_or_a_module(nix_engine: Engine, nixpkgs: Path, tmp_path: Path) -> None:
    (tmp_path / "flake.nix").write_text(
        f"""{{
          outputs = {{ self }}: {{
            nixosConfigurations.web = import {nixpkgs}/nixos/lib/eval-config.nix {{
              modules = [
                {{ nixpkgs.pkgs = import {nixpkgs} {{ }}; environment.etc.kind.text = "a system"; }}
              ];
            }};
            nixosModules.extra.environment.etc.kind.text = "a module";
          }};
        }}"""
    )
    nodes = {
        "system": Node(".#nixosConfigurations.web"),
        "module": Node(f"{tmp_path}#nixosModules.extra"),
    }
    try:
        cluster = nix_engine.boot(Topology(nodes), directories=[tmp_path])
    except NixError as error:
        if "before 21.11" in str(error):
            pytest.skip(str(error))
        raise
    with cluster:
        assert cluster["system"].read_text("/etc/kind") == "a system"
        assert cluster["module"].read_text("/etc/kind") == "a module"
        assert "192.168.1.2" in cluster["module"].succeed("getent ahostsv4 system")


def test_a_manifest_needs_no_nix(
    nix_engine: Engine, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = {
        "web": Node("{ virtualisation.vlans = [ 5 ]; }"),
        "bare": Node("{ virtualisation.vlans = [ ]; }"),
    }
    with nix_engine.boot(Topology(nodes), start=False) as cluster:
        facts = cluster.facts
    manifest = tmp_path / "manifest.json"
    interface = {"name": "eth1", "network": 5, "address4": "192.168.5.2", "address6": "2001:db8:5::2"}
    web = {"system": facts["web"].system, "hostName": "web", "interfaces": [interface]}
    manifest.write_text(json.dumps({"./some/web.nix": web, "bare": facts["bare"].system}))

    def refuse(*_arguments: object, **_keywords: object) -> None:
        pytest.fail("Nix was run")

    monkeypatch.setattr(process, "run_aloud", refuse)
    monkeypatch.setattr(process, "run", refuse)
    with Engine(EngineOptions(manifest=manifest)) as engine:
        booted = Topology({"web": Node("./some/web.nix"), "bare": Node("bare", networks=[5])})
        with engine.boot(booted) as cluster:
            assert "192.168.5.2/24" in cluster["web"].succeed("ip -4 addr show eth1")
            cluster["bare"].wait_until_succeeds("ping -c 1 -W 1 web", timeout=60)
