"""Collection: node fixtures come to be, tests are parametrised with their clusters and put side by side."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.naming import identifier
from pytest_nspawn.plugin import fixtures, marks
from pytest_nspawn.plugin.lookup import Lookup
from pytest_nspawn.plugin.marks import NODES, RESERVED, ClusterRequest
from pytest_nspawn.plugin.options import suggestion
from pytest_nspawn.plugin.run import refuse, run_key


class NspawnWarning(pytest.PytestWarning):
    """Something about nodes that is most likely a mistake."""


NspawnWarning.__module__ = "pytest_nspawn.plugin"  # as `filterwarnings` is to spell it


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Generator[None, Any, Any]:
    """Register the fixtures of a test's nodes before pytest works out which fixtures the test needs."""
    if isinstance(obj, type):
        _refuse_testcase(collector, obj)
    elif collector.istestfunction(obj, name):
        declared = [*marks.marks_of(obj), *collector.iter_markers(NODES)]
        for node_name in dict.fromkeys(marks.declared_names(declared)):
            _register(collector, f"{collector.nodeid}::{name}", node_name)
    made = yield
    for item in made if isinstance(made, list) else [made]:
        _refuse_parameter_mark(collector, item)
    return made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for its nodes one parameter a variant: what to boot, and how long to share it."""
    definition = metafunc.definition
    try:
        requests = marks.requests_of(definition)
        if not requests:
            return  # `nodes` may be a fixture of the user's own: none of our business
        _check_names(Lookup(definition), requests)
    except ConfigError as error:
        error.test = definition.nodeid
        raise definition.parent.CollectError(str(error)) from error  # type: ignore[union-attr]
    if NODES in metafunc.fixturenames:
        scope = requests[0].scope
        metafunc.parametrize(NODES, requests, indirect=True, scope=scope, ids=marks.variant_ids(requests))
    elif any(mark.name == NODES for mark in marks.marks_of(metafunc.function)):
        names = ", ".join(requests[0].topology.nodes)
        definition.warn(
            NspawnWarning(
                f"nothing asks for the nodes of this test ({names}): name one as an argument, "
                "or add @pytest.mark.usefixtures('nodes')"
            )
        )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that share a cluster side by side, and change no order otherwise.

    pytest 9.2 does so itself; before, it compared parameters by their position.
    """
    groups: dict[object, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(_sharing(item), []).append(item)
    items[:] = [item for group in groups.values() for item in group]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a test that asks for a node it does not have, before anything of it is set up."""
    try:
        # Where nothing asks for a node that there is, the test is not parametrised: its marks still name the nodes.
        declared = request_of(item) or next(iter(marks.requests_of(item)), None)
        _check_asked(Lookup(item), declared)
    except ConfigError as error:
        refuse(error, item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Remember which test runs, for those who boot nodes at run time."""
    run = item.config.stash[run_key]
    run.item = item
    try:
        return (yield)
    finally:
        run.item = None


def _sharing(item: pytest.Item) -> object:
    """What is equal for two tests that share a cluster; for any other test, the test itself."""
    request = request_of(item)
    if request is None or request.scope == "function":
        return item
    places = {"class": item.getparent(pytest.Class) or item, "module": item.getparent(pytest.Module)}
    return request, places.get(request.scope)


def request_of(item: pytest.Item) -> ClusterRequest | None:
    """What an item's marks ask to boot, where the item asks for it."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get(NODES) if callspec is not None else None
    return found if isinstance(found, ClusterRequest) else None


def _register(collector: pytest.Collector, test: str, node_name: str) -> None:
    """Make a node a fixture, unless a plugin has one of that name."""
    name = identifier(node_name)
    if name in RESERVED:
        error = ConfigError(
            test=test,
            node=node_name,
            problem=f"the fixture name {name!r} is reserved",
            hint="call the node something else",
        )
        raise collector.CollectError(str(error))
    lookup = Lookup(collector.session)
    foreign = [each for each in lookup.definitions(name) if not lookup.is_ours(each)]
    users = [each for each in foreign if lookup.is_from_conftest(each)]
    if lookup.is_registered(name) or len(users) < len(foreign):
        return
    pytest.register_fixture(
        name=name, func=fixtures.node_fixture(name), node=collector.session, scope="session"
    )
    for each in users:
        # The root directory's conftest registers on the session as well, and of two on one node the later wins:
        # the user's own fixture has to win, and may ask for the node that it replaces.
        pytest.register_fixture(
            name=name,
            func=each.func,
            node=collector.session,
            scope=each.scope,
            params=each.params,
            ids=each.ids,
        )


def _refuse_testcase(collector: pytest.Collector, cls: type) -> None:
    unittest = sys.modules.get("unittest")  # as pytest does: where nobody imported it, there is no TestCase
    if unittest is None or not issubclass(cls, unittest.TestCase):
        return
    for owner in cls.__mro__:
        for obj in (owner, *filter(inspect.isfunction, vars(owner).values())):
            if not marks.marks_of(obj):
                continue
            error = ConfigError(
                test=f"{collector.nodeid}::{cls.__name__}",
                problem="a unittest.TestCase cannot have nodes: its methods take no fixtures",
                hint="make it a plain class, with test functions that ask for their nodes",
            )
            raise collector.CollectError(str(error))


def _refuse_parameter_mark(collector: pytest.Collector, item: object) -> None:
    callspec = getattr(item, "callspec", None)
    for mark in callspec.marks if callspec is not None else ():
        if mark.name in (marks.NODES, marks.NETWORKS):
            error = ConfigError(
                test=getattr(item, "nodeid", None),
                problem=f"the {mark.name} mark does nothing on a pytest.param",
                hint="write variants: @pytest.mark.nodes(Topology(nodes={...}, name='...'), Topology(...))",
            )
            raise collector.CollectError(str(error))


def _check_names(lookup: Lookup, requests: Sequence[ClusterRequest]) -> None:
    """Refuse what would be somebody else's fixture where the user expects a node."""
    if NODES in lookup.closure and not lookup.is_node_fixture(NODES):
        raise ConfigError(
            problem=f"the fixture 'nodes' is overridden by {lookup.describe(NODES)}",
            hint="rename that fixture: a test with the nodes mark needs the plugin's own",
        )
    for node_name in dict.fromkeys(name for request in requests for name in request.topology.nodes):
        name = identifier(node_name)
        if name in lookup.arguments and lookup.is_foreign(name):
            raise ConfigError(
                node=node_name,
                problem=f"the argument {name!r} is the fixture of {lookup.describe(name)}, not the node",
                hint=f"ask for `nodes` and use nodes[{node_name!r}], or rename the node",
            )


def _check_asked(lookup: Lookup, request: ClusterRequest | None) -> None:
    """Refuse the names that are neither a node of the test nor a fixture."""
    declared = tuple(request.topology.nodes) if request else ()
    known = {identifier(name) for name in declared}
    has = f"the nodes of this test: {', '.join(declared)}" if declared else "the test has no nodes mark"
    for name in lookup.closure:
        if name in known or (not request and not lookup.is_node_fixture(name)):
            continue
        if not lookup.definitions(name) and name != "request":
            raise ConfigError(
                problem="no node and no fixture has the name",
                value=name,
                hint=f"{has}{suggestion(name, sorted(known))}",
            )
        if lookup.is_node_fixture(name) and name not in (NODES, "machine"):
            raise ConfigError(
                node=name,
                problem="the test asks for this node, but no nodes mark of it declares it",
                hint=f"{has}{suggestion(name, sorted(known))}",
            )
        if not request:
            raise ConfigError(
                problem=f"the fixture {name!r} needs nodes",
                hint="declare them: @pytest.mark.nodes(server=Node())",
            )
        if name == "machine" and len(declared) > 1 and "machine" not in known:
            raise ConfigError(
                problem="'machine' is the only node, or the one of that name, and there are several",
                hint=f"ask for one of {', '.join(declared)}",
            )
