"""How fast the engine is, side by side with a bare systemd-nspawn and nsenter, on one root file system.

`./dev bench` prints the table; medians, the two sides taking turns. The exit status is 1 where a limit is not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import bare
from pytest_nspawn import Machine, Node, Topology
from pytest_nspawn.cluster import Cluster, Engine, EngineOptions

GIBIBYTE = 1 << 30

_STREAM_UNITS = {
    "stream.socket": "[Socket]\nListenStream=9000\nAccept=yes\n[Install]\nWantedBy=sockets.target\n",
    "stream@.service": f"[Service]\nExecStart=/usr/bin/head -c {GIBIBYTE} /dev/zero\nStandardOutput=socket\n",
    "slow.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/sleep 0.1\n",
}

_TEST = """
import pytest
from pytest_nspawn import Machine, Node

@pytest.mark.nodes(one=Node(), two=Node())
@pytest.mark.parametrize("number", range({count}))
def test_two_nodes(one: Machine, two: Machine, number: int) -> None:
    one.succeed("true")
    two.succeed("true")
"""

# A test's phases as pytest itself times them.
_CONFTEST = """
import json
phases = []

def pytest_runtest_logreport(report):
    phases.append((report.when, report.duration, report.outcome))

def pytest_sessionfinish():
    with open({path!r}, "w") as file:
        json.dump(phases, file)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table. `limit` is on the ratio where there is another side, on our seconds where not."""

    what: str
    limit: float
    ours: list[float]
    theirs: list[float] = field(default_factory=list)

    @property
    def measured(self) -> float:
        """What the limit is on."""
        ours = statistics.median(self.ours)
        return ours / statistics.median(self.theirs) if self.theirs else ours

    def cells(self) -> list[str]:
        """The line as text."""
        theirs = _time(statistics.median(self.theirs)) if self.theirs else ""
        ratio = f"{self.measured:.2f}" if self.theirs else ""
        limit = f"{self.limit:g}" if self.theirs else _time(self.limit)
        kept = "yes" if self.measured <= self.limit else "**no**"
        return [self.what, _time(statistics.median(self.ours)), theirs, ratio, limit, kept]


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def timed(action: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


class Ours:
    """Boots nodes with the engine, a fresh sandbox each time, and takes the time to the last READY=1."""

    def __init__(self, rootfs: Path) -> None:
        self.node = Node(image=f"rootfs:{rootfs}", units=_STREAM_UNITS)
        self.plain = Node(image=f"rootfs:{rootfs}")

    @contextlib.contextmanager
    def nodes(self, count: int, node: Node) -> Iterator[tuple[Cluster, float]]:
        """A cluster, all of it ready, and the seconds that took: the sandbox's start included."""
        waiting = threading.Semaphore(0)
        failed: list[str] = []

        def on_boot(event: str, machine: Machine) -> None:
            if event == "failed":
                failed.append(machine.name)
            if event in ("ready", "failed"):
                waiting.release()

        with Engine(EngineOptions(on_boot=on_boot)) as engine:
            began = time.perf_counter()
            with engine.boot(Topology({f"node{number}": node for number in range(count)})) as cluster:
                for _ in range(count):
                    waiting.acquire()
                seconds = time.perf_counter() - began
                if failed:
                    raise SystemExit(f"did not boot: {', '.join(failed)}")
                yield cluster, seconds


def boots(rootfs: Path, repeats: int, count: int) -> tuple[list[float], list[float]]:
    """Seconds until all of `count` nodes are ready: ours, then bare ones."""
    ours, theirs = [], []
    engine = Ours(rootfs)
    for _ in range(repeats):
        with bare.nodes(rootfs, count) as nodes:
            theirs.append(max(node.ended for node in nodes) - min(node.began for node in nodes))
        with engine.nodes(count, engine.plain) as (_, seconds):
            ours.append(seconds)
    return ours, theirs


def in_a_node(rootfs: Path, repeats: int) -> list[Row]:
    """Everything that is measured in a node that runs."""
    engine = Ours(rootfs)
    with bare.nodes(rootfs, 1) as [other], engine.nodes(1, engine.node) as (cluster, _):
        [machine] = cluster.machines
        unit = "dbus.socket"
        shell = other.enter(["sh", "-c", ". /etc/profile; true"])
        show = other.enter(["systemctl", "show", unit, "--property=ActiveState"])
        machine.execute("true")
        machine.get_unit_property(unit, "ActiveState")
        execute = _turns(repeats, lambda: machine.execute("true"), lambda: _run(shell))
        prop = _turns(repeats, lambda: machine.get_unit_property(unit, "ActiveState"), lambda: _run(show))
        port = machine.forward_port(0, 9000)
        stream = _turns(
            repeats,
            lambda: _receive(socket.create_connection(("127.0.0.1", port))),
            lambda: _receive(_loopback()),
        )
        late = [_lateness(machine) for _ in range(repeats)]
    return [
        Row(
            what='`execute("true")`, against `nsenter ... sh -c ". /etc/profile; true"`',
            limit=0.15,
            **execute,
        ),
        Row(what="`get_unit_property`, against `nsenter ... systemctl show`", limit=0.05, **prop),
        Row(what="`wait_for_unit` returns after the unit is active", limit=0.02, ours=late),
        Row(what="`forward_port`: 1 GiB, against a direct loopback connection", limit=4, **stream),
    ]


def _turns(repeats: int, ours: Callable[[], object], theirs: Callable[[], object]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        times["ours"].append(timed(ours))
        times["theirs"].append(timed(theirs))
    return times


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def _lateness(machine: Machine) -> float:
    machine.systemctl("stop slow.service")
    machine.systemctl("start --no-block slow.service")
    machine.wait_for_unit("slow.service")
    returned = time.monotonic()
    # The node has our monotonic clock; systemd counts in microseconds.
    active = int(machine.get_unit_property("slow.service", "ActiveEnterTimestampMonotonic")) / 1e6
    if not active:
        raise SystemExit("slow.service says no time at which it became active")
    return returned - active


def _receive(connection: socket.socket) -> None:
    buffer = bytearray(1 << 18)
    total = 0
    with connection:
        while count := connection.recv_into(buffer):
            total += count
    if total != GIBIBYTE:
        raise SystemExit(f"{total} bytes arrived, not {GIBIBYTE}")


def _loopback() -> socket.socket:
    """A connection to the same program on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with theirs:
        subprocess.Popen(["head", "-c", str(GIBIBYTE), "/dev/zero"], stdout=theirs.fileno())
    return ours


def around_a_test(rootfs: Path, repeats: int) -> list[float]:
    """Seconds of set-up and teardown of tests that boot two nodes; they wait for the boot in their own phase."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        home = Path(directory)
        result = home / "phases.json"
        (home / "pytest.ini").write_text("[pytest]\n")
        (home / "conftest.py").write_text(_CONFTEST.format(path=str(result)))
        (home / "test_bench.py").write_text(_TEST.format(count=repeats + 1))
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"--nspawn-image=rootfs:{rootfs}", "test_bench.py"],
            cwd=home,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if run.returncode:
            raise SystemExit(run.stdout + run.stderr)
        phases = json.loads(result.read_text())
    around = [0.0] * (repeats + 1)
    number = -1
    for when, seconds, _ in phases:
        number += when == "setup"
        around[number] += seconds if when != "call" else 0.0
    # The first starts the session's sandbox, the last ends it.
    return around[1:-1]


def _describe() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    nspawn = subprocess.run(
        ["systemd-nspawn", "--version"], check=True, capture_output=True, text=True
    ).stdout
    return (
        f"{os.cpu_count()} x {model}, Linux {platform.release()}, "
        f"{nspawn.splitlines()[0]}, Python {platform.python_version()}"
    )


def _print_table(rows: Sequence[Row]) -> None:
    lines = [["", "ours", "the other", "ratio", "at most", "kept"], *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def main() -> int:
    """Measure and print; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-n", type=int, default=20, metavar="N", help="measurements of each side (default 20)"
    )
    parser.add_argument("--rootfs", type=Path, default=os.environ.get("NSPAWN_TEST_ROOTFS"))
    parser.add_argument(
        "--nixpkgs",
        type=Path,
        default=os.environ.get("NSPAWN_TEST_STANDIN"),
        help="measure NixOS with it; `./dev bench` gives the stand-in where it is there",
    )
    parser.add_argument("--only-nixos", action="store_true", help="measure NixOS only")
    options = parser.parse_args()
    if options.rootfs is None:
        parser.error("--rootfs or NSPAWN_TEST_ROOTFS must name a root file system; `./dev bench` makes one")
    if os.geteuid() != 0:
        parser.error("a bare systemd-nspawn needs root: run it as root")
    rows = [] if options.only_nixos else debian_rows(options.rootfs.resolve(), options.n)
    if options.nixpkgs is not None:
        from benchmarks import nixos  # it has its rows from here

        rows += nixos.rows(options.nixpkgs.resolve(), options.n)
    print(f"{_describe()}; medians of {options.n}\n")
    _print_table(rows)
    return 0 if all(row.measured <= row.limit for row in rows) else 1


def debian_rows(rootfs: Path, repeats: int) -> list[Row]:
    """All that is measured on a Debian root file system."""
    one = boots(rootfs, repeats, 1)
    eight = boots(rootfs, repeats, 8)
    return [
        Row(
            what="first node ready, against a bare `systemd-nspawn --boot`",
            limit=0.35,
            ours=one[0],
            theirs=one[1],
        ),
        Row(what="8 nodes ready, against 8 bare ones at once", limit=0.65, ours=eight[0], theirs=eight[1]),
        *in_a_node(rootfs, repeats),
        Row(
            what="set-up and teardown of a test with two nodes, beside the boot",
            limit=0.15,
            ours=around_a_test(rootfs, repeats),
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
