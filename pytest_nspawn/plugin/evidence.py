"""What a failed test's report tells of its nodes: asked for before teardown, bounded in size and time, never a fault."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pytest_nspawn.plugin.marks import NODES

if TYPE_CHECKING:
    from pytest_nspawn.plugin.live import LiveCluster
    from pytest_nspawn.plugin.run import Run
    from pytest_nspawn.plugin.seams import Cluster

Section = tuple[str, str]

LIMIT = 64 * 1024
"""Bytes of a section: its tail."""
DEADLINE = 15.0
"""Seconds for all nodes of a test together."""

_preserved_key = pytest.StashKey[list[Section]]()


def clusters_of(run: Run, item: pytest.Item) -> list[LiveCluster]:
    """The living clusters that a test uses: the one that its marks ask for, and those it booted itself."""
    callspec = getattr(item, "callspec", None)
    request = callspec.params.get(NODES) if callspec is not None else None
    boots_itself = "nspawn" in getattr(item, "fixturenames", ())
    return [
        live for live in run.live if (live.request == request if live.request is not None else boots_itself)
    ]


def of_failed(run: Run, item: pytest.Item) -> list[Section]:
    """The sections of a failed test: of nodes that stopped before, then of those that run."""
    sections = item.stash.get(_preserved_key, [])
    item.stash[_preserved_key] = []
    for live in clusters_of(run, item):
        sections += _sections(live, item)
    return sections


def preserve(live: LiveCluster, item: pytest.Item | None) -> None:
    """Take the sections of nodes that are about to stop, for a report that comes after that."""
    if item is not None:
        item.stash.setdefault(_preserved_key, []).extend(_sections(live, item))


def _sections(live: LiveCluster, item: pytest.Item) -> list[Section]:
    """The sections of all nodes of a cluster, asked for side by side."""
    inquiries = [_Inquiry(name, live.cluster) for name in live.cluster]
    deadline = time.monotonic() + DEADLINE
    kept = live.keep_for(item)
    sections: list[Section] = []
    for inquiry in inquiries:
        sections += [(title, tail(text)) for title, text in inquiry.answer(deadline) if text.strip()]
        if inquiry.name in kept and live.cluster.has_state(inquiry.name):
            text = (
                f"{kept[inquiry.name]}: its root, console and journal, there as soon as the node is torn down"
            )
            sections.append((f"{inquiry.name}: kept state", text))
    return sections


@dataclass(slots=True)
class _Inquiry:
    """What one node can tell, asked on a thread of its own: a node that hangs must not hang the report."""

    name: str
    cluster: Cluster
    _found: list[Section] = field(default_factory=list)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._ask, name=f"nspawn-report-{self.name}", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self._found = list(self.cluster.diagnostics(self.name).items())
        except Exception as error:  # noqa: BLE001 (said in the report; its own faults must not replace the test's)
            self._found = [(f"{self.name}: console", f"[not to be had: {error!r}]")]

    def answer(self, deadline: float) -> list[Section]:
        """What it has told by the deadline."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            return [
                (f"{self.name}: console", f"[not to be had: the node did not answer within {DEADLINE:g} s]")
            ]
        return self._found


def tail(text: str) -> str:
    """The end of a text, at most `LIMIT` bytes, with a first line that says what was left out."""
    data = text.encode(errors="replace")
    if len(data) <= LIMIT:
        return data.decode()
    note = f"[... {len(data) - LIMIT} bytes and more before this are left out]\n"
    return note + data[len(note) + len(data) - LIMIT :].decode(errors="ignore")
