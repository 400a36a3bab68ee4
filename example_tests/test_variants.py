"""One test for several topologies: it runs once for each."""

import pytest

from fixtures.web_server import web_server
from pytest_nspawn import Cluster, Machine, Node, Topology

ONE = Topology({"backend": web_server()}, name="one-backend")
THREE = Topology({f"backend{number}": web_server() for number in (1, 2, 3)}, name="three-backends")


@pytest.mark.nodes(ONE, THREE, client=Node())
def test_every_backend_answers(nodes: Cluster, client: Machine) -> None:
    backends = [name for name in nodes if name.startswith("backend")]
    for name in backends:
        nodes[name].wait_for_open_port(80)
        assert client.succeed(f"curl --fail --silent http://{name}/") == "hello\n"
    assert len(backends) in (1, 3)
