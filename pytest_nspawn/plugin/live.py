"""A cluster from its boot to its end within a run of pytest: what it leaves behind, and what it must not hide."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_nspawn.errors import NspawnError
from pytest_nspawn.plugin import evidence
from pytest_nspawn.plugin.marks import ClusterRequest

if TYPE_CHECKING:
    from pytest_nspawn.plugin.run import Run
    from pytest_nspawn.plugin.seams import Cluster


class LiveCluster:
    """A cluster whose nodes may run; `request` is None for one that a test boots by itself."""

    def __init__(
        self, run: Run, cluster: Cluster, request: ClusterRequest | None, directory: Callable[[], Path]
    ) -> None:
        self.cluster = cluster
        self.request = request
        self._run = run
        self._directory = directory
        self._kept: Path | None = None
        run.live.append(self)
        if run.settings.keep == "always":
            self.keep_for(run.item)

    def keep_for(self, item: pytest.Item | None) -> Mapping[str, Path]:
        """Have the state of all nodes kept when they stop, in the name of a test; where each will lie."""
        if self._run.settings.keep == "never":
            return {}
        if self._kept is None:
            self._kept = _new_directory(self._directory(), item.nodeid if item is not None else "session")
        return {name: self._kept / name for name in self.cluster}

    def close(self) -> None:
        """Stop the nodes, and end the test with every boot failure and every fault on the way: none hides another."""
        errors: list[Exception] = list(self.cluster.boot_failures())
        if errors:
            evidence.preserve(self, self._run.item)
        steps: list[Callable[[], object]] = []
        if self._kept is not None:
            steps += [lambda name=name: self.cluster.keep(name, self._kept / name) for name in self.cluster]  # type: ignore[misc]
        steps += [self.cluster.close, lambda: self._run.live.remove(self), self._run.events.deliver]
        for step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001 (all are raised below, together)
                errors.append(error)
        _raise_all(errors)


def _raise_all(errors: list[Exception]) -> None:
    __tracebackhide__ = True
    if not errors:
        return
    if all(isinstance(error, NspawnError) for error in errors):
        pytest.fail("\n\n".join(map(str, errors)), pytrace=False)
    if len(errors) == 1:
        raise errors[0]
    raise ExceptionGroup("stopping the nodes of a test", errors)


def _new_directory(parent: Path, test: str) -> Path:
    """A name in `parent` that nothing has yet, after a test's ID."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", test.rpartition("/")[2]).strip("-")[:80]
    candidate, number = parent / name, 1
    while candidate.exists():
        number += 1
        candidate = parent / f"{name}-{number}"
    candidate.mkdir(parents=True)
    return candidate
