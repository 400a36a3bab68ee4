from __future__ import annotations

import ipaddress
import pickle

import pytest

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.model import Network, Node, Topology
from pytest_nspawn.naming import host_name, identifier, plan_wiring


def node(*networks: int | str) -> Node:
    return Node(networks=networks)


def many(count: int, *networks: int | str) -> dict[str, Node]:
    return {f"n{number:05}": node(*networks) for number in range(1, count + 1)}


@pytest.mark.parametrize(
    ("name", "text"), [("web-1", "web_1"), ("web", "web"), ("1web", "_web"), ("a.b", "a_b"), ("é", "_")]
)
def test_identifiers_are_the_nixos_drivers(name: str, text: str) -> None:
    assert identifier(name) == text


def test_host_names_have_no_underscores() -> None:
    assert host_name("web_1") == "web-1"


def test_addresses_are_the_nixos_drivers() -> None:
    wiring = plan_wiring(Topology({"server": node(1, 2), "client": None}))
    assert wiring.numbers == {"client": 1, "server": 2}
    first, second = wiring.links["server"]
    assert (first.ifname, second.ifname) == ("eth1", "eth2")
    assert str(first.address4) == "192.168.1.2/24"
    assert str(second.address4) == "192.168.2.2/24"
    assert str(first.address6) == "2001:db8:1::2/64"
    bridge = wiring.bridges[0]
    assert (str(bridge.address4), str(bridge.address6)) == ("192.168.1.254/24", "2001:db8:1::fe/64")
    assert pickle.loads(pickle.dumps(wiring)) == wiring


def test_ipv6_writes_the_number_out_as_the_nixos_driver_does() -> None:
    wiring = plan_wiring(Topology(many(12, 12)))
    link = wiring.links["n00012"][0]
    assert str(link.address4) == "192.168.12.12/24"
    assert str(link.address6) == "2001:db8:12::12/64"


def test_a_named_network_gets_the_next_free_number() -> None:
    topology = Topology({"a": node("front", 2, "back"), "b": node(1)})
    assert {bridge.network: bridge.vlan for bridge in plan_wiring(topology).bridges} == {
        1: 1,
        2: 2,
        "back": 3,
        "front": 4,
    }


def test_a_free_number_is_one_whose_addresses_are_free() -> None:
    wiring = plan_wiring(Topology({"a": node("a", "b")}, {"a": "192.168.2.0/24"}))
    assert [str(link.address4) for link in wiring.links["a"]] == ["192.168.2.1/24", "192.168.3.1/24"]


def test_interfaces_follow_the_order_of_the_nodes_networks() -> None:
    wiring = plan_wiring(Topology({"a": node("z", 9, "b")}))
    assert [(link.ifname, link.network) for link in wiring.links["a"]] == [
        ("eth1", "z"),
        ("eth2", 9),
        ("eth3", "b"),
    ]


def test_custom_subnets() -> None:
    networks = {
        "a": Network("10.1.0.0/16", "fd00:1::/112"),
        "b": Network("10.2.0.0/29", host=False, mtu=9000),
    }
    wiring = plan_wiring(Topology({"x": node("a", "b")}, networks))
    a, b = wiring.bridges
    assert (str(a.address4), str(a.address6)) == ("10.1.0.254/16", "fd00:1::fe/112")
    assert (b.address4, b.address6, b.mtu) == (None, None, 9000)
    assert [str(link.address4) for link in wiring.links["x"]] == ["10.1.0.1/16", "10.2.0.1/29"]


def test_the_host_side_is_last_in_a_subnet_without_254() -> None:
    (bridge,) = plan_wiring(Topology({"x": node("a")}, {"a": Network("10.1.0.0/29", "fd00::/124")})).bridges
    assert (str(bridge.address4), str(bridge.address6)) == ("10.1.0.6/29", "fd00::f/124")


def test_the_host_side_makes_room_for_node_254() -> None:
    wiring = plan_wiring(Topology(many(300, "a"), {"a": Network("10.1.0.0/16")}))
    assert str(wiring.bridges[0].address4) == "10.1.255.254/16"
    assert str(wiring.links["n00254"][0].address4) == "10.1.0.254/16"


def test_names_of_interfaces_fit_and_never_collide() -> None:
    nodes = many(250, *range(1, 12)) | {"x" * 63: node(255), "y" * 63: node(255)}
    wiring = plan_wiring(Topology(nodes))
    links = [link for links in wiring.links.values() for link in links]
    names = [link.host_ifname for link in links] + [bridge.ifname for bridge in wiring.bridges]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 15
    assert "lo" not in names


def test_hardware_addresses_are_local_unique_and_always_the_same() -> None:
    topology = Topology(many(250, 1, 2, "a"))
    links = [link for links in plan_wiring(topology).links.values() for link in links]
    assert len({link.mac for link in links}) == len(links)
    assert {int(link.mac[:2], 16) & 3 for link in links} == {2}
    assert links == [link for links in plan_wiring(topology).links.values() for link in links]


@pytest.mark.parametrize("count", [254, 255])
def test_a_network_without_free_addresses(count: int) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_wiring(Topology(many(count, 1)))
    assert caught.value.node == "n00254"
    assert "no free address" in str(caught.value)
    assert "192.168.1.0/24" in str(caught.value)


def test_254_nodes_fit_without_the_host_side() -> None:
    wiring = plan_wiring(Topology(many(254, 1), {1: Network(host=False)}))
    assert str(wiring.links["n00254"][0].address4) == "192.168.1.254/24"


def test_a_small_subnet_runs_out() -> None:
    networks = {"a": Network("10.0.0.0/30")}
    assert len(plan_wiring(Topology(many(1, "a"), networks)).links) == 1
    with pytest.raises(ConfigError) as caught:
        plan_wiring(Topology(many(2, "a"), networks))
    assert caught.value.node == "n00002"


def test_a_small_subnet_of_ipv6_runs_out() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_wiring(Topology(many(10, "a"), {"a": Network(subnet6="fd00::/124")}))
    assert caught.value.node == "n00010"


@pytest.mark.parametrize(
    ("networks", "names"),
    [
        ({"a": "10.0.0.0/16", "b": "10.0.1.0/24"}, "'a' and 'b'"),
        ({"a": "fd00::/32", "b": "fd00:0:1::/64"}, "'a' and 'b'"),
        ({1: Network(), "a": "192.168.0.0/16"}, "1 and 'a'"),
    ],
)
def test_overlapping_subnets(networks: dict[int | str, Network | str], names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_wiring(Topology({"x": None}, networks))
    assert f"networks {names} overlap" in str(caught.value)


def test_too_many_networks() -> None:
    with pytest.raises(ConfigError, match="at most 255 networks"):
        plan_wiring(Topology({}, {f"n{number}": Network() for number in range(256)}))


def test_no_nodes_and_no_networks() -> None:
    assert plan_wiring(Topology()).bridges == ()
    assert plan_wiring(Topology({"a": node()})).links["a"] == ()


def test_every_address_lies_in_its_subnet() -> None:
    wiring = plan_wiring(Topology(many(99, 1, "a"), {"a": Network("10.7.0.0/25", "fd00::/119")}))
    for links in wiring.links.values():
        for link in links:
            assert link.address4 is not None
            assert link.address6 is not None
            for address in (link.address4, link.address6):
                assert address.ip in ipaddress.ip_network(address.network)
                assert address.ip not in {address.network[0], link.address4.network[-1]}
