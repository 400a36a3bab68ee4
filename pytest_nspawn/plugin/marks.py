"""From the marks of module, class and function to the clusters that a test asks for: values only, nothing boots."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import pytest

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.model import Network, Node, Topology, as_network, as_node, config_kind
from pytest_nspawn.plugin.options import suggestion

Scope = Literal["function", "class", "module", "package", "session"]
SCOPES: tuple[str, ...] = get_args(Scope)
NODES = "nodes"
NETWORKS = "networks"
RESERVED = ("request", "nodes", "nspawn")


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """The parameter of the fixture `nodes`: tests whose requests are equal share a cluster within their scope.

    The scope is part of it: with the topology alone, a function-scoped test got a session's dirty cluster.
    """

    topology: Topology
    scope: Scope = "function"
    place: str = ""
    """The package that a package-scoped cluster belongs to: pytest does not tell packages apart for plugins."""
    directories: tuple[Path, ...] = ()
    """Where relative paths in the topology's texts are looked up; none where it has none."""
    start: bool = field(default=True, compare=False)

    def __repr__(self) -> str:
        return f"<{', '.join(self.topology.nodes)}>"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one object (a function, a class without its bases, a module) says."""

    variants: tuple[Topology, ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    networks: Mapping[str | int, Network] = field(default_factory=dict)
    scope: Scope | None = None
    start: bool | None = None


def marks_of(obj: object) -> list[pytest.Mark]:
    """Our marks on an object itself: of a class, those of its bases are left out."""
    own = vars(obj).get("pytestmark", []) if isinstance(obj, type) else getattr(obj, "pytestmark", [])
    marks: list[Any] = [
        getattr(each, "mark", each) for each in (own if isinstance(own, list | tuple) else [own])
    ]
    return [mark for mark in marks if isinstance(mark, pytest.Mark) and mark.name in (NODES, NETWORKS)]


def declared_names(marks: Iterable[pytest.Mark]) -> Iterator[str]:
    """Names of all nodes that the marks declare, malformed marks aside: those are an error later."""
    for mark in marks:
        if mark.name == NODES:
            yield from (name for name in mark.kwargs if name not in ("scope", "start"))
            for variant in mark.args:
                if isinstance(variant, Topology):
                    yield from variant.nodes


def requests_of(definition: pytest.Item) -> list[ClusterRequest]:
    """The clusters that a test's marks declare, one a variant; none without a `nodes` mark.

    Raises:
        ConfigError: a mark is malformed, or what the marks add up to is no topology.
    """
    grouped = [
        (node, list(marks))
        for node, marks in itertools.groupby(_marks_with_node(definition), lambda it: it[0])
    ]
    layers = [_layer(marks) for node, pairs in grouped for marks in _split(node, [mark for _, mark in pairs])]
    if not any(mark.name == NODES for _node, pairs in grouped for _, mark in pairs):
        return []
    layers.reverse()  # the closest comes last, and wins
    scope: Scope = next((layer.scope for layer in reversed(layers) if layer.scope is not None), "function")
    start = next((layer.start for layer in reversed(layers) if layer.start is not None), True)
    package = definition.getparent(pytest.Package) if scope == "package" else None
    place = package.nodeid if package is not None else ""
    directories = (definition.path.parent, definition.config.rootpath)
    return [
        ClusterRequest(topology, scope, place, directories if _has_relative_paths(topology) else (), start)
        for topology in _variants(layers)
    ]


def _marks_with_node(definition: pytest.Item) -> Iterator[tuple[pytest.Item | pytest.Collector, pytest.Mark]]:
    for node, mark in definition.iter_markers_with_node():
        if mark.name in (NODES, NETWORKS):
            yield cast("pytest.Item | pytest.Collector", node), mark


def _split(node: object, marks: list[pytest.Mark]) -> Iterator[list[pytest.Mark]]:
    """The marks of one pytest node by the object that they stand on, closest first: a class before its bases."""
    left = list(marks)
    owners = node.obj.__mro__ if isinstance(node, pytest.Class) else ()
    own = [[mark for mark in left if any(mark is each for each in marks_of(owner))] for owner in owners]
    ours = [mark for mark in left if not any(mark is each for group in own for each in group)]
    yield from (group for group in [ours, *own] if group)


def _layer(marks: Sequence[pytest.Mark]) -> Layer:
    """What the marks on one object add up to: nothing on it may be said twice."""
    variants: list[Topology] = []
    nodes: dict[str, Node] = {}
    networks: dict[str | int, Network] = {}
    scope: Scope | None = None
    start: bool | None = None
    for mark in marks:
        if mark.name == NETWORKS:
            for name, network in _networks(mark).items():
                _once(networks, name, "network")
                networks[name] = network
            continue
        said = dict(mark.kwargs)
        if "scope" in said:
            scope = scope or _scope(said.pop("scope"))
        if "start" in said:
            start = _start(said.pop("start")) if start is None else start
        if mark.args and variants:
            raise ConfigError(
                problem="two nodes marks on one object have variants", hint="put them into one mark"
            )
        variants.extend(_variant(each) for each in mark.args)
        for name, value in said.items():
            _once(nodes, name, "node")
            nodes[name] = as_node(value)
    for variant in variants:
        for name in variant.nodes:
            _once(nodes, name, "node")
    return Layer(tuple(variants), nodes, networks, scope, start)


def _variants(layers: Sequence[Layer]) -> Iterator[Topology]:
    """The topologies that layers add up to, furthest first; variants of several layers multiply."""
    for chosen in itertools.product(*(layer.variants or (None,) for layer in layers)):
        nodes: dict[str, Node] = {}
        networks: dict[Any, Network] = {}
        for layer, variant in zip(layers, chosen, strict=True):
            nodes |= {**(variant.nodes if variant else {}), **layer.nodes}
            networks |= {**(variant.networks if variant else {}), **layer.networks}
        names = [variant.name for variant in chosen if variant and variant.name is not None]
        yield Topology(nodes=nodes, networks=networks, name="-".join(names) or None)


def variant_ids(requests: Sequence[ClusterRequest]) -> list[Any]:
    """The test IDs of variants: one alone leaves the test's ID as it is."""
    if len(requests) == 1:
        return [pytest.HIDDEN_PARAM]
    return [request.topology.name for request in requests]


def _once(known: Mapping[Any, object], name: object, what: str) -> None:
    if name in known:
        raise ConfigError(
            problem=f"the {what} {name!r} is declared twice on one object",
            hint=f"leave one out, or rename it; a mark on another object may replace a {what}",
        )


def _variant(value: object) -> Topology:
    if isinstance(value, Topology):
        return value
    raise ConfigError(
        problem="a positional argument of the nodes mark is no Topology",
        value=value,
        hint="write nodes(name=...), or Topology(nodes={...}, name='...') for a variant",
    )


def _scope(value: object) -> Scope:
    if value in SCOPES:
        return cast("Scope", value)
    hint = suggestion(value, SCOPES) if isinstance(value, str) else ""
    raise ConfigError(problem="no such scope", value=value, hint=f"use one of {', '.join(SCOPES)}{hint}")


def _start(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigError(problem="start is no truth value", value=value, hint="use start=True or start=False")


def _networks(mark: pytest.Mark) -> dict[str | int, Network]:
    """The networks that one mark declares."""
    if len(mark.args) > 1 or not all(isinstance(each, Mapping) for each in mark.args):
        raise ConfigError(
            problem="the networks mark takes one mapping, and networks by name",
            value=mark.args,
            hint="write networks(lan='10.0.0.0/24'), or networks({1: '10.0.0.0/24'})",
        )
    by_position: dict[str | int, Any] = dict(mark.args[0]) if mark.args else {}
    for name in mark.kwargs:
        _once(by_position, name, "network")
    return {name: as_network(value) for name, value in (*by_position.items(), *mark.kwargs.items())}


def _has_relative_paths(topology: Topology) -> bool:
    """Whether what the topology means depends on the test file's directory."""
    for node in topology.nodes.values():
        paths = [str(each) for each in node.configs if config_kind(each) == "path"]
        kind, _, argument = (node.image or "").partition(":")
        paths += [argument] if kind == "rootfs" else []
        if not all(os.path.isabs(path) for path in paths):
            return True
    return False
