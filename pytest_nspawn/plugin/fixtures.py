"""The fixtures: the nodes of a test, all together and one by one, and clusters that a test boots itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_nspawn.errors import ConfigError, HostError, NspawnError
from pytest_nspawn.model import NodeLike, Topology, as_node
from pytest_nspawn.naming import identifier
from pytest_nspawn.plugin import evidence, seams
from pytest_nspawn.plugin.live import LiveCluster
from pytest_nspawn.plugin.marks import ClusterRequest
from pytest_nspawn.plugin.run import Run, refuse, run_key

if TYPE_CHECKING:
    from pytest_nspawn.cluster import Cluster
    from pytest_nspawn.machine import Machine
    from pytest_nspawn.nixbuild import NixTest, Outline


class Nspawn:
    """Boots nodes that are known only at run time: `with nspawn.boot(server=Node()) as nodes: ...`."""

    def __init__(self, run: Run, directory: Callable[[], Path]) -> None:
        self._run = run
        self._directory = directory
        self._engine: seams.Engine | None = None

    @contextlib.contextmanager
    def boot(self, topology: Topology | None = None, /, **nodes: NodeLike) -> Iterator[Cluster]:
        """Boot nodes for as long as the block lasts; paths are looked up as the nodes mark does.

        Raises ConfigError and HostError before anything boots.
        """
        base = topology or Topology()
        added = {name: as_node(node) for name, node in nodes.items()}
        live = self.start(Topology({**base.nodes, **added}, base.networks, base.name))
        try:
            yield cast("Cluster", live.cluster)
        except BaseException as error:
            evidence.preserve(live, self._run.item)  # the report comes when these nodes are gone
            try:
                live.close()
            except (Exception, pytest.fail.Exception) as other:  # noqa: BLE001 (told with the first one)
                error.add_note(f"And when the nodes were stopped: {other}")
            raise
        live.close()

    def start(
        self,
        topology: Topology,
        request: ClusterRequest | None = None,
        *,
        start: bool = True,
        slow_job: float | None = None,
    ) -> LiveCluster:
        """Begin to boot a topology, and return at once. Raises ConfigError, HostError, SandboxError."""
        run = self._run
        with self._asking() as (engine, directories):
            start = start if request is None else request.start
            cluster = engine.boot(topology, directories=directories, start=start, slow_job=slow_job)
        return LiveCluster(run, cluster, request, self._directory)

    def nix_test(self, reference: Path | str, check: Callable[[Outline], None]) -> NixTest:
        """Evaluate and build an existing NixOS test, unless `check` raises something. Raises NixError, ConfigError, HostError."""
        with self._asking() as (engine, directories):
            return engine.nix_test(reference, directories=directories, check=check)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[tuple[seams.Engine, Sequence[Path]]]:
        """The engine, and where paths are looked up; errors name the test, or skip it where that was asked for."""
        run, item = self._run, self._run.item
        beside = item.path.parent if item is not None else run.config.rootpath
        try:
            if self._engine is None:
                self._engine = seams.make_engine(run)
            yield self._engine, (beside, run.config.rootpath)
        except HostError as error:
            if run.settings.skip_unavailable:
                raise pytest.skip.Exception(str(error)) from None
            raise
        except ConfigError as error:
            error.test = error.test or (item.nodeid if item is not None else None)
            raise

    def close(self) -> None:
        """Stop the engine, if there ever was one."""
        if self._engine is not None:
            self._engine.close()
            self._run.events.deliver()


@pytest.fixture(scope="session")
def nspawn(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nspawn]:
    """Boot nodes that are known only at run time: `with nspawn.boot(server=Node()) as nodes:`."""
    here = Nspawn(pytestconfig.stash[run_key], lambda: tmp_path_factory.getbasetemp() / "nspawn")
    yield here
    here.close()


@pytest.fixture(scope="session")
def nodes(request: pytest.FixtureRequest, nspawn: Nspawn) -> Iterator[Cluster]:
    """All nodes that the marks of this test declare, by name: they boot side by side, in the background."""
    run = request.config.stash[run_key]
    wanted = getattr(request, "param", None)
    if not isinstance(wanted, ClusterRequest):
        hint = "ask for them as arguments, or with @pytest.mark.usefixtures('nodes')"
        refuse(ConfigError(problem="the nodes of a test must be known before it runs", hint=hint), run.item)
    try:
        live = nspawn.start(wanted.topology, wanted)
    except NspawnError as error:
        refuse(error, run.item)
    yield cast("Cluster", live.cluster)
    live.close()


@pytest.fixture(scope="session")
def machine(nodes: Cluster) -> Machine:
    """The node called `machine`, else the only node."""
    if "machine" in nodes:
        return nodes["machine"]
    (only,) = nodes.values()  # several are refused before the test is set up
    return only


def node_fixture(name: str) -> Callable[..., Machine]:
    """A fixture for the nodes that are called `name`, with the characters that no identifier has as `_`."""

    def node(nodes: Cluster) -> Machine:
        return next(nodes[each] for each in nodes if identifier(each) == name)

    node.__name__ = node.__qualname__ = name
    node.__doc__ = f"The node {name!r} of a test's nodes mark."
    return node


_DUMMIES = pytest.StashKey[set[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> object | None:
    """With --setup-only, leave out nodes and what is made of them: no test runs, so nothing is to boot."""
    if not request.config.getoption("setuponly", default=False):
        return None
    dummies = request.config.stash.setdefault(_DUMMIES, set())
    ours = fixturedef.func.__module__ == __name__
    if not ours and not dummies.intersection(fixturedef.argnames):
        return None
    dummies.add(fixturedef.argname)
    fixturedef.cached_result = (None, fixturedef.cache_key(cast("Any", request)), None)
    return fixturedef.cached_result
