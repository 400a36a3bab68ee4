"""Nodes that all tests of a module share: they boot once."""

import pytest

from fixtures.web_server import web_server
from pytest_nspawn import Cluster, Machine, Node

pytestmark = pytest.mark.nodes(server=web_server(), client=Node(), scope="module")


def test_the_page_is_served(server: Machine, client: Machine) -> None:
    server.wait_for_open_port(80)
    assert client.succeed("curl --fail --silent http://server/") == "hello\n"
    client.write_text("/root/seen", "by the first test")


def test_the_next_test_finds_the_same_nodes(client: Machine) -> None:
    assert client.read_text("/root/seen") == "by the first test"


def test_all_nodes_know_each_other(nodes: Cluster) -> None:
    for machine in nodes.values():
        for other in nodes:
            assert machine.succeed(f"getent hosts {other}")
