from __future__ import annotations

import configparser

from pytest_nspawn.model import Node, Topology
from pytest_nspawn.naming import plan_wiring
from pytest_nspawn.networkd import hosts_file, network_files


def hosts(topology: Topology, node: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in hosts_file(plan_wiring(topology), node).splitlines():
        address, *names = line.split()
        for name in names:
            found.setdefault(name, []).append(address)
    return found


def test_one_file_an_interface() -> None:
    wiring = plan_wiring(Topology({"a": Node(networks=["x", 7])}))
    files = network_files(wiring, "a")
    assert list(files) == ["50-eth1.network", "50-eth2.network"]
    text = files["50-eth2.network"]
    # Sections may repeat in systemd's files, not in configparser's.
    parsed = configparser.ConfigParser(strict=False)
    parsed.read_string(text)
    assert parsed["Match"]["Name"] == "eth2"
    assert parsed["Network"]["DHCP"] == "no"
    assert parsed["Network"]["IPv6AcceptRA"] == "no"
    assert "Address=192.168.7.1/24\nDuplicateAddressDetection=none\n" in text
    assert "Address=2001:db8:7::1/64\nDuplicateAddressDetection=none\n" in text


def test_a_node_without_networks_needs_no_file() -> None:
    assert network_files(plan_wiring(Topology({"a": Node(networks=[])})), "a") == {}


def test_hosts_name_every_node() -> None:
    found = hosts(Topology({"server": None, "client": None, "web_1": None}), "client")
    assert found["localhost"] == ["127.0.0.1", "::1"]
    assert found["client"] == ["192.168.1.1", "2001:db8:1::1"]
    assert found["server"] == ["192.168.1.2", "2001:db8:1::2"]
    assert found["web_1"] == found["web-1"] == ["192.168.1.3", "2001:db8:1::3"]


def test_hosts_prefer_a_network_that_both_share() -> None:
    topology = Topology(
        {"client": Node(networks=[1]), "router": Node(networks=[2, 1]), "server": Node(networks=[2])}
    )
    assert hosts(topology, "client")["router"][0] == "192.168.1.2"
    assert hosts(topology, "server")["router"][0] == "192.168.2.2"
    assert hosts(topology, "router")["router"][0] == "192.168.2.2"
    assert hosts(topology, "client")["server"][0] == "192.168.2.3"


def test_a_node_without_networks_knows_its_own_name() -> None:
    topology = Topology({"alone": Node(networks=[]), "other": None})
    assert hosts(topology, "alone")["alone"] == ["127.0.1.1"]
    assert "alone" not in hosts(topology, "other")
