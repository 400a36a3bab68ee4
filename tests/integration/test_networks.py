"""Networks of nodes: addresses, names, isolation, links that are there before PID 1 looks."""

from __future__ import annotations

import json

import pytest

from pytest_nspawn import Network
from pytest_nspawn.cluster import Engine
from pytest_nspawn.model import Node, Topology

LONG = "a-node-with-a-name-as-long-as-a-host-name-may-be-sixty-three-b"


def test_addresses_names_and_isolation(engine: Engine) -> None:
    topology = Topology(
        {"alpha": Node(networks=[1, "back"]), LONG: Node(networks=["back"]), "gamma_1": Node()},
        {"back": Network("10.5.0.0/29", "fd00:5::/64", mtu=1400)},
    )
    with engine.boot(topology) as nodes:
        alpha, long, gamma = nodes["alpha"], nodes[LONG], nodes["gamma_1"]
        links = {link["ifname"]: link for link in json.loads(alpha.succeed("ip -json addr"))}
        assert set(links) == {"lo", "eth1", "eth2"}
        addresses = [entry["local"] for entry in links["eth2"]["addr_info"] if entry["scope"] == "global"]
        assert addresses == ["10.5.0.2", "fd00:5::2"]
        assert links["eth2"]["mtu"] == 1400
        assert gamma.succeed("hostname") == "gamma-1\n"
        for name in (LONG, "gamma-1", "gamma_1", "alpha"):
            assert alpha.succeed(f"getent hosts {name}")
        alpha.succeed("python3 -m http.server 80 >/dev/null 2>&1 &")
        alpha.wait_for_open_port(80)
        for other in (long, gamma):
            other.wait_for_open_port(80, "alpha", timeout=60)
        # Other networks are not reached.
        gamma.fail("curl --silent --max-time 2 http://10.5.0.2/")
        # The host side is.
        for address in ("192.168.1.254", "10.5.0.6"):
            assert "refused" in alpha.execute(f"bash -c 'echo > /dev/tcp/{address}/9' 2>&1", timeout=60)[1]


def test_waiting_for_the_network_costs_nothing(engine: Engine) -> None:
    unit = "[Unit]\nWants=network-online.target\nAfter=network-online.target\n[Service]\nType=oneshot\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    with engine.boot(Topology({"online": Node(units={"online.service": unit}, networks=[1, 2])})) as nodes:
        online = nodes["online"]
        assert online.get_unit_property("network-online.target", "ActiveState") == "active"
        tentative = online.succeed("ip -6 addr show tentative")
        assert tentative == ""


def test_clusters_with_the_same_addresses_live_side_by_side(engine: Engine) -> None:
    topology = Topology({"server": Node(), "client": Node()})
    with engine.boot(topology) as one, engine.boot(topology) as other:
        for nodes, text in ((one, "one"), (other, "other")):
            nodes["server"].succeed(f"mkdir /srv/www; echo {text} > /srv/www/index.html")
            nodes["server"].succeed("cd /srv/www; python3 -m http.server 80 >/dev/null 2>&1 &")
        for nodes, text in ((one, "one"), (other, "other")):
            nodes["server"].wait_for_open_port(80, timeout=60)
            assert nodes["client"].succeed("curl --silent --fail http://server/") == f"{text}\n"


def test_a_node_without_networks(engine: Engine) -> None:
    with engine.boot(Topology({"alone": Node(networks=[])})) as nodes:
        assert nodes["alone"].succeed("ls /sys/class/net") == "lo\n"


@pytest.mark.parametrize("again", ["reboot", "crash"])
def test_a_restarted_node_has_its_links(engine: Engine, again: str) -> None:
    with engine.boot(Topology({"one": Node(), "two": Node()})) as nodes:
        getattr(nodes["one"], again)()
        nodes["one"].start()
        assert "refused" in nodes["one"].execute("bash -c 'echo > /dev/tcp/two/9' 2>&1", timeout=60)[1]
