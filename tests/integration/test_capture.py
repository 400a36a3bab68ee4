"""What goes over a network, captured."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nspawn.cluster import Cluster, Engine
from pytest_nspawn.errors import SandboxError, TimeoutExceeded
from pytest_nspawn.model import Network, Node, Topology


@pytest.fixture(scope="module")
def nodes(engine: Engine) -> Iterator[Cluster]:
    topology = Topology(
        {
            "client": Node(networks=["lan", 7]),
            "server": Node(networks=["lan", 7], files={"/srv/page": "the page of the server\n"}),
        },
        networks={"lan": Network("10.77.0.0/24")},
    )
    with engine.boot(topology) as nodes:
        nodes["server"].succeed("python3 -m http.server --directory /srv 80 >/dev/null 2>&1 &")
        nodes["server"].wait_for_open_port(80)
        nodes["client"].wait_until_succeeds("curl --fail --silent http://server/page", timeout=30)
        yield nodes


def test_a_networks_frames_are_captured_and_no_others(nodes: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "http.pcap"
    with nodes.networks["lan"].capture(path) as capture, nodes.networks[7].capture() as other:
        nodes["client"].succeed("curl --fail --silent http://10.77.0.2/page")
        frame = capture.wait_for(lambda frame: b"the page of the server" in frame)
    assert frame in capture.frames
    assert any(b"GET /page" in each for each in capture.frames)
    assert not any(b"GET /page" in each for each in other.frames)
    count = len(capture.frames)
    nodes["client"].succeed("curl --fail --silent http://10.77.0.2/page")
    assert len(capture.frames) == count
    data = path.read_bytes()
    assert struct.unpack("=IHH", data[:8]) == (0xA1B23C4D, 2, 4)
    assert len(data) == 24 + sum(16 + len(each) for each in capture.frames)
    seconds, nanoseconds, length, original = struct.unpack("=IIII", data[24:40])
    assert seconds > 1_600_000_000
    assert nanoseconds < 1_000_000_000
    assert length == original == len(capture.frames[0])


def test_a_frame_that_does_not_come(nodes: Cluster) -> None:
    with nodes.networks[7].capture() as capture, pytest.raises(TimeoutExceeded, match="network 7"):
        capture.wait_for(lambda frame: b"never sent" in frame, timeout=0.2)


def test_a_network_says_what_was_declared(nodes: Cluster) -> None:
    assert str(nodes.networks["lan"].subnet4) == "10.77.0.0/24"
    assert nodes.networks[7].vlan == 7
    assert nodes.networks[7].host


def test_a_cluster_that_is_gone(engine: Engine) -> None:
    with engine.boot(Topology({"a": Node()})) as nodes:
        network = nodes.networks[1]
        nodes["a"].connect()
    with pytest.raises(SandboxError), network.capture():
        pass
