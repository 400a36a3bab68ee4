"""Three nodes in two networks: what the client sends to the server goes through the router."""

import pytest

from fixtures.web_server import web_server
from pytest_nspawn import Machine, Node

FORWARDS = {"/etc/sysctl.d/50-router.conf": "net.ipv4.ip_forward = 1\n"}


@pytest.mark.nodes(
    client=Node(networks=["office"]),
    router=Node(networks=["office", "datacenter"], files=FORWARDS),
    server=web_server(networks=["datacenter"]),
)
@pytest.mark.networks(office="10.1.0.0/24", datacenter="10.2.0.0/24")
def test_the_router_connects_both_networks(client: Machine, router: Machine, server: Machine) -> None:
    server.wait_for_open_port(80)
    client.fail("curl --silent --max-time 2 http://10.2.0.3/")

    client.succeed(
        "ip route add 10.2.0.0/24 via 10.1.0.2"
    )  # nodes are numbered by name: client, router, server
    server.succeed("ip route add 10.1.0.0/24 via 10.2.0.2")

    assert client.succeed("curl --fail --silent http://10.2.0.3/") == "hello\n"
    assert router.succeed("cat /proc/sys/net/ipv4/ip_forward") == "1\n"
