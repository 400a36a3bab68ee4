"""Real NixOS, from the nixpkgs tree that NSPAWN_TEST_NIXPKGS names, over Debian's programs (debian/README.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pytest_nspawn import Node, Topology, boot
from pytest_nspawn.cluster import Cluster

from . import debian_nixpkgs
from .given import nixpkgs_over_debian

pytestmark = pytest.mark.nixos

_SYSTEMS = Path(__file__).parent / "debian/systems.nix"
_NAMES = ("minimal", "one", "two", "client", "host")
_ADDRESSES = {"client": "192.168.1.1", "one": "192.168.1.2", "two": "192.168.1.3"}


@pytest.fixture(scope="module")
def wrapper() -> Path:
    return nixpkgs_over_debian()


@pytest.fixture(scope="module")
def systems(wrapper: Path) -> Mapping[str, str]:
    return debian_nixpkgs.build(_SYSTEMS, wrapper, _NAMES)


@pytest.fixture(scope="module")
def three(systems: Mapping[str, str]) -> Iterator[Cluster]:
    # Without user namespaces: activation may mount /dev and /run anew, as switching asks of it.
    names = ("client", "one", "two")
    nodes = {name: Node(systems[name], private_users=False) for name in names}
    with boot(Topology(nodes=nodes)) as cluster:
        yield cluster


def test_nothing_is_prepared_twice(wrapper: Path) -> None:
    nixpkgs = debian_nixpkgs.given_nixpkgs()
    assert nixpkgs is not None
    before = wrapper.stat()
    assert debian_nixpkgs.prepare(nixpkgs) == wrapper
    after = wrapper.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_package_that_is_not_there_says_so(wrapper: Path) -> None:
    with pytest.raises(RuntimeError, match=r"does not have this package: its source \S*hello-\S+"):
        debian_nixpkgs.evaluate(f"(import {wrapper} {{}}).hello.drvPath")


def test_the_module_sees_its_own_nixpkgs(wrapper: Path) -> None:
    assert debian_nixpkgs.evaluate(f"toString (import {wrapper} {{}}).path") == str(wrapper)


def test_a_configuration_reaches_the_packages(wrapper: Path) -> None:
    module = '{ pkgs, ... }: { nixpkgs = { config.answer = 42; overlays = [ (_: _: { word = "yes"; }) ]; }; }'
    system = f"import {wrapper}/nixos/lib/eval-config.nix {{ modules = [ ({module}) ]; }}"
    value = debian_nixpkgs.evaluate(f"let p = ({system}).pkgs; in [ p.config.answer p.word p.nginx.pname ]")
    assert value == [42, "yes", "nginx"]


@pytest.mark.parametrize("private_users", [True, False])
def test_a_minimal_system_boots_without_a_failed_unit(
    systems: Mapping[str, str], private_users: bool
) -> None:
    with boot(minimal=Node(systems["minimal"], private_users=private_users)) as nodes:
        machine = nodes["minimal"]
        machine.succeed("systemctl is-system-running --wait")
        assert machine.succeed("nixos-version").startswith("2")
        assert machine.succeed("nix-store --version").startswith("nix-store (Nix)")
        # /usr has what Debian's programs have built in, and nothing that NixOS has not on a PATH.
        assert machine.succeed("ls /usr/bin /bin").split() == [
            "/bin:",
            "sh",
            "/usr/bin:",
            "env",
            "mount",
            "umount",
        ]


def test_nginx_answers_through_the_firewall(three: Cluster) -> None:
    for name in ("one", "two"):
        three[name].wait_for_open_port(80)
        page = three["client"].succeed(f"curl --fail --silent --show-error http://{_ADDRESSES[name]}/")
        assert page == f"page of {name}"


def test_the_firewall_drops_what_is_not_allowed(three: Cluster) -> None:
    one, client = three["one"], three["client"]
    one.succeed("systemd-run --unit=hidden nc -lk 8080")
    one.wait_for_unit("hidden.service")
    assert "--dport 80 -j nixos-fw-accept" in one.succeed("iptables-save")
    client.fail(f"curl --max-time 2 http://{_ADDRESSES['one']}:8080/")
    client.succeed(f"nc -z -w 2 {_ADDRESSES['one']} 80")


def test_users_and_setuid_wrappers(three: Cluster) -> None:
    one = three["one"]
    assert one.succeed("id -u alice").strip() == "1234"
    assert one.succeed("sudo -u alice sudo id -u").strip() == "0"
    assert one.succeed("stat -L -c %a /run/wrappers/bin/sudo").strip() == "4511"
    one.succeed("su - alice -c 'ping -c 1 -W 2 192.168.1.1'")


def test_ssh_between_nodes(three: Cluster) -> None:
    client, two = three["client"], three["two"]
    client.succeed("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
    key = client.succeed("cat /root/.ssh/id_ed25519.pub").strip()
    two.succeed(f"install -d -o alice -m 700 ~alice/.ssh; echo '{key}' >~alice/.ssh/authorized_keys")
    options = "-o StrictHostKeyChecking=no -o BatchMode=yes"
    said = client.wait_until_succeeds(f"ssh {options} alice@{_ADDRESSES['two']} sudo hostname", timeout=60)
    assert said.strip() == "two"


def test_names_by_multicast(three: Cluster) -> None:
    client = three["client"]
    assert _ADDRESSES["one"] in client.wait_until_succeeds("resolvectl query -4 one.local", timeout=60)
    llmnr = client.wait_until_succeeds("resolvectl query --protocol=llmnr -4 two", timeout=60)
    assert _ADDRESSES["two"] in llmnr


def test_switching_to_a_specialisation(three: Cluster) -> None:
    two, one, client = three["two"], three["one"], three["client"]
    one.fail("id bob")
    one.succeed("/run/current-system/specialisation/other/bin/switch-to-configuration test")
    assert one.succeed("cat /etc/specialisation") == "other"
    one.succeed("id bob")
    page = client.succeed(f"curl --fail --silent http://{_ADDRESSES['one']}/other/")
    assert page == "page of the specialisation"
    two.succeed("test ! -e /etc/specialisation")


def test_a_reboot_keeps_the_state_and_forgets_the_specialisation(three: Cluster) -> None:
    one = three["one"]
    one.succeed("echo kept >/var/lib/state")
    boot_id = "cat /proc/sys/kernel/random/boot_id; systemctl show -P UserspaceTimestampMonotonic"
    before = one.succeed(boot_id)
    one.reboot()
    one.wait_for_open_port(80)
    assert one.succeed("cat /var/lib/state") == "kept\n"
    assert one.succeed(boot_id) != before
    one.succeed("test ! -e /etc/specialisation")


def test_a_node_runs_containers_of_its_own(systems: Mapping[str, str]) -> None:
    with boot(host=Node(systems["host"], private_users=False, nspawn_options=("--capability=all",))) as nodes:
        host = nodes["host"]
        host.succeed("systemctl start systemd-nspawn@inner")
        assert "inner" in host.succeed("machinectl list --no-legend")
        host.wait_until_succeeds("systemctl -M inner is-system-running --wait", timeout=60)
        name = host.succeed("systemd-run -M inner --wait --pipe -q /run/current-system/sw/bin/hostname")
        assert name.strip() == "minimal"
        # Debian's files for both ends of the link are found: an address by DHCP, not one of its own.
        host.wait_until_succeeds(
            "machinectl status inner | grep -E 'Address: (192[.]168|10[.]|172[.])'", timeout=20
        )
        host.succeed("journalctl -M inner -n 1")
        host.succeed("machinectl stop inner")
        host.wait_until_fails("machinectl show inner", timeout=60)
