from __future__ import annotations

import copy
import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.frozen import FrozenMap
from pytest_nspawn.model import (
    Bind,
    CommandResult,
    Network,
    Node,
    Topology,
    as_network,
    as_node,
    config_kind,
    parse_size,
)

SECRET = "correct horse"


def full() -> Node:
    return Node(
        ["fixtures/web.nix", Path("client.nix")],
        image="host",
        networks=["front", 2],
        files={"/etc/motd": SECRET, "/usr//bin/tool": (b"#!/bin/sh\n", 0o755)},
        units={"hello.service": f"[Service]\nExecStart=echo {SECRET}\n"},
        binds={"/src": "src", "/data": Bind("/data", read_only=True)},
        credentials={"password": SECRET},
        network_units={"50-eth1.network": f"[Match]\nName={SECRET}\n"},
        memory="512M",
        cpus=1.5,
        tasks=400,
        private_users=True,
        root_size="2G",
        nspawn_options=["--no-new-privileges=yes", f"--set-credential=x:{SECRET}"],
    )


def test_everything_is_frozen_on_entry() -> None:
    files = {"/etc/motd": "one"}
    node = Node(files=files, networks=[1])
    files["/etc/motd"] = "two"
    assert node.files == {"/etc/motd": (b"one", 0o644)}
    assert node.networks == (1,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        node.memory = "1G"  # type: ignore[misc]
    with pytest.raises(TypeError):
        node.files["/etc/motd"] = (b"", 0)  # type: ignore[index]
    assert not hasattr(node, "__dict__")


@pytest.mark.parametrize(
    "value",
    [
        full(),
        Network("10.0.0.0/24", host=False),
        Bind("x"),
        Topology({"web": full(), "client": None}, {"front": "10.0.0.0/24"}, name="small"),
        CommandResult("true", 0, "", "", 0.1, "web"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_hash_compare_copy_and_pickle(value: Any) -> None:
    for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert again == value
        assert hash(again) == hash(value)
        assert repr(again) == repr(value)


def test_the_order_of_mappings_makes_no_difference() -> None:
    one = Topology({"a": Node(files={"/a": "", "/b": ""}), "b": None}, {1: "10.0.0.0/24", "x": Network()})
    two = Topology({"b": None, "a": Node(files={"/b": "", "/a": ""})}, {"x": Network(), "1": "10.0.0.0/24"})
    assert one == two
    assert len({one, two}) == 1
    assert list(one.networks) == [1, "x"]
    assert one != Topology({"a": None, "b": None})


def test_replace_keeps_what_it_does_not_name() -> None:
    node = dataclasses.replace(full(), memory="1G")
    assert node.memory_bytes == 2**30
    assert dataclasses.replace(node, memory="512M") == full()


def test_reprs_are_short_and_show_no_contents() -> None:
    topology = Topology({"web": full(), "client": Node(f"{{ x = '{SECRET}'; }}")}, {1: Network()}, "small")
    for value in (topology, *topology.nodes.values(), topology.nodes):
        assert SECRET not in repr(value)
    assert repr(topology) == "Topology('small', nodes=<client, web>, networks=<1>)"
    assert repr(topology.nodes["client"]) == "Node(<Nix expression>)"
    assert repr(Node("web.nix", files={"/etc/motd": "x"})) == "Node('web.nix', files=</etc/motd>)"
    assert repr(Network("10.0.0.0/24", host=False)) == "Network(subnet4='10.0.0.0/24', host=False)"
    result = CommandResult(("echo", "a b"), 0, SECRET, SECRET, 0.1, "web")
    assert repr(result) == "CommandResult(web: \"echo 'a b'\", exit_code=0, duration=0.100)"


def test_paths_become_absolute_and_text_stays() -> None:
    node = full()
    assert node.config == ("fixtures/web.nix", Path.cwd() / "client.nix")
    assert node.configs == node.config
    assert node.binds["/src"] == Bind(Path.cwd() / "src")
    assert list(node.files) == ["/etc/motd", "/usr/bin/tool"]
    assert node.credentials["password"] == SECRET.encode()


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ("/nix/store/abc-nixos-system-web", "system"),
        ("{ services.nginx.enable = true; }", "expression"),
        ("{ imports = [ ./a.nix ]; }", "expression"),
        ("web.nix", "path"),
        ("fixtures/web", "path"),
        ("web", "name"),
        (Path("/nix/store/abc-source/{web}.nix"), "path"),
    ],
)
def test_kinds_of_configs(config: str | Path, kind: str) -> None:
    assert config_kind(config) == kind


@pytest.mark.parametrize(
    ("text", "size"), [("1K", 1024), ("512M", 2**29), ("1.5G", 3 * 2**29), ("2T", 2**41)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "12", "12Q", "512m", "0M", "-1G", "1 G", "1G\n", "\u0661G", "0.0001K", 512]
)
def test_malformed_sizes(text: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_size(text)
    assert caught.value.value == text
    assert "512M" in str(caught.value)


BAD_NODES: list[tuple[dict[str, Any], str]] = [
    ({"memory": "12"}, "'12'"),
    ({"root_size": "big"}, "'big'"),
    ({"root_size": None}, "root_size"),
    ({"cpus": 0}, "0"),
    ({"cpus": "two"}, "'two'"),
    ({"cpus": float("inf")}, "inf"),
    ({"tasks": -3}, "-3"),
    ({"tasks": 1.5}, "1.5"),
    ({"private_users": "yes"}, "'yes'"),
    ({"config": 5}, "5"),
    ({"config": ""}, "''"),
    ({"config": [None]}, "config"),
    ({"image": ""}, "''"),
    ({"networks": "front"}, "networks=['front', 'back']"),
    ({"networks": [1, "1"]}, "twice"),
    ({"networks": [0]}, "0"),
    ({"networks": [256]}, "256"),
    ({"networks": [True]}, "True"),
    ({"networks": ["a b"]}, "'a b'"),
    ({"files": ["/etc/motd"]}, "dictionary"),
    ({"files": {"etc/motd": ""}}, "'etc/motd'"),
    ({"files": {"/etc/../motd": ""}}, "'/etc/../motd'"),
    ({"files": {"/": ""}}, "'/'"),
    ({"files": {"/a\0": ""}}, "\\x00"),
    ({"files": {"/" + "x" * 300: ""}}, "too long"),
    ({"files": {"/a": "", "//a": ""}}, "'/a'"),
    ({"files": {"/a": "", "/a/b": ""}}, "'/a/b'"),
    ({"files": {"/a": 5}}, "/a"),
    ({"files": {"/a": (b"", 0o10000)}}, "4096"),
    ({"files": {"/a": "\ud800"}}, "/a"),
    ({"binds": {"/a": 5}}, "/a"),
    ({"binds": {"a": "/b"}}, "'a'"),
    ({"units": {"web": ""}}, "'web'"),
    ({"units": {"web.conf": ""}}, "'web.conf'"),
    ({"units": {"../web.service": ""}}, "'../web.service'"),
    ({"units": {"web.service": b""}}, "web.service"),
    ({"network_units": {"eth1.service": ""}}, "'eth1.service'"),
    ({"credentials": {"a/b": ""}}, "'a/b'"),
    ({"credentials": {"a:b": ""}}, "'a:b'"),
    ({"credentials": {"a": 5}}, "a"),
    ({"nspawn_options": "--bind=/x"}, "list"),
]


@pytest.mark.parametrize(("options", "shown"), BAD_NODES, ids=[str(each[0])[:40] for each in BAD_NODES])
def test_what_is_wrong_with_a_node_names_the_node_and_the_value(options: dict[str, Any], shown: str) -> None:
    node = Node(**options)
    repr(node)
    with pytest.raises(ConfigError) as caught:
        Topology({"client": None, "web": node})
    assert caught.value.node == "web"
    assert caught.value.hint or "no UTF-8" in str(caught.value)
    assert "node 'web'" in str(caught.value)
    assert shown in str(caught.value)
    assert next(iter(options)) in str(caught.value) or options.keys() & {"config", "image", "networks"}


def test_a_fault_stays_when_other_options_are_replaced() -> None:
    assert dataclasses.replace(Node(memory="12"), image="host").fault is not None
    assert dataclasses.replace(Node(memory="12"), memory="12M").fault is None


def test_errors_show_no_contents() -> None:
    for node in (
        Node(files={"/a": (SECRET, -1)}),
        Node(files={"/a": (SECRET, 1, 2)}),  # type: ignore[dict-item]
        Node(units={"web": SECRET}),
        Node(credentials={"/": SECRET}),
        Node(nspawn_options=f"--set-credential=x:{SECRET}"),
        Node(files=[SECRET]),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError) as caught:
            Topology({"web": node})
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(caught.value.value)


@pytest.mark.parametrize(
    ("network", "shown"),
    [
        (Network("10.0.0.1/24"), "10.0.0.1/24"),
        (Network("300.0.0.0/24"), "300.0.0.0/24"),
        (Network("10.0.0.0/31"), "10.0.0.0/31"),
        (Network(subnet6="fd00::/127"), "fd00::/127"),
        (Network("127.0.0.0/8"), "127.0.0.0/8"),
        (Network("fd00::/64"), "subnet4"),
        (Network(mtu=100), "1280"),
        (Network(host="no"), "'no'"),  # type: ignore[arg-type]
        (5, "5"),
        ("nonsense", "nonsense"),
    ],
)
def test_what_is_wrong_with_a_network_names_it(network: Any, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Topology({"web": None}, {"front": network})
    assert "network 'front'" in str(caught.value)
    assert shown in str(caught.value)


@pytest.mark.parametrize("name", [0, 256, "", "a/b", True, None, "x" * 64])
def test_no_name_of_a_network(name: Any) -> None:
    with pytest.raises(ConfigError):
        Topology({}, {name: Network()})


def test_a_network_declared_twice() -> None:
    with pytest.raises(ConfigError, match="twice"):
        Topology({}, {1: Network(), "1": Network()})


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-web",
        "web-",
        "_web",
        "we b",
        "web.example",
        "wéb",
        "x" * 64,
        "web\n",
        "12",
        "0x1f",
        "localhost",
        5,
    ],
)
def test_no_host_may_have_the_name(name: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Topology({name: None})
    assert caught.value.node == name
    assert "no host may have this name" in str(caught.value)


@pytest.mark.parametrize("name", ["request", "nodes", "nspawn"])
def test_reserved_names(name: str) -> None:
    with pytest.raises(ConfigError, match="reserved"):
        Topology({name: None})


@pytest.mark.parametrize("pair", [("web-1", "web_1"), ("Web", "web")])
def test_names_that_become_the_same(pair: tuple[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Topology(dict.fromkeys(pair))
    assert all(repr(name) in str(caught.value) for name in pair)


def test_shorthands() -> None:
    assert as_node("web.nix") == Node("web.nix")
    assert as_node(["a.nix"]) == Node(["a.nix"])
    assert as_node(None) == Node()
    assert as_node(full()) == full()
    assert as_network("10.0.0.0/24") == Network("10.0.0.0/24")
    assert as_network("fd00::/64") == Network(subnet6="fd00::/64")


def test_networks_of_a_topology() -> None:
    topology = Topology({"a": None, "b": Node(networks=["x", 7]), "c": Node(networks=[])}, {9: "10.0.0.0/24"})
    assert topology.networks_of("a") == (1,)
    assert topology.networks_of("c") == ()
    assert list(topology.all_networks) == [1, 7, 9, "x"]
    assert topology.all_networks[9] == Network("10.0.0.0/24")


def test_a_frozen_map_is_a_mapping() -> None:
    mapping: FrozenMap[int | str, int] = FrozenMap({"b": 1, 2: 2, "a": 3, 1: 4})
    assert list(mapping) == [1, 2, "a", "b"]
    assert mapping == {"a": 3, "b": 1, 1: 4, 2: 2}
    assert {mapping: 1}[pickle.loads(pickle.dumps(mapping))] == 1
    assert mapping != {}


def test_path_like_configs() -> None:
    class Somewhere(os.PathLike[str]):
        def __fspath__(self) -> str:
            return "/tmp/web.nix"

    assert Node(Somewhere()).config == Path("/tmp/web.nix")
