"""An engine that boots nothing: it writes down what it was asked for, so that tests in other processes can read it.

An inner conftest installs it: `from fake_engine import *`. It evaluates a NixOS test without Nix: nodes as its first
comment says in JSON (`# {"nodes": {"server": {...}}, "vm_only": {...}}`, a node's fields are those of `Node`), the script
as its text has it.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_nspawn.errors import (
    BootError,
    CommandFailed,
    ConfigError,
    HostError,
    NspawnError,
    RequestedAssertionFailed,
)
from pytest_nspawn.model import CommandResult, Node, Topology
from pytest_nspawn.nixbuild import NixTest, Outline
from pytest_nspawn.plugin.seams import EngineFactory, EngineRequest, engine_factory_key

__all__ = ["pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    factory: EngineFactory = FakeEngine  # type: ignore[assignment]
    config.stash[engine_factory_key] = factory


def note(text: str) -> None:
    """One line of the record; O_APPEND keeps lines of several workers whole."""
    with Path(os.environ["FAKE_RECORD"]).open("a") as file:
        file.write(f"{text}\n")


def hidden(excinfo: Any) -> bool:
    return excinfo is not None and isinstance(excinfo.value, RequestedAssertionFailed)


__tracebackhide__ = hidden  # as the modules of the real machine have it


class FakeMachine:
    def __init__(self, name: str, request: EngineRequest) -> None:
        self.name = name
        self.history: list[CommandResult] = []
        self.callbacks: list[Callable[[], object]] = []
        self.out_dir = Path()
        self.problem: str | None = None
        self.started = False
        self._request = request

    def start(self) -> None:
        if self.started:
            return
        self.started = True
        note(f"start {self.name}")
        self._request.on_boot("started", self)  # type: ignore[arg-type]
        if "broken" in self.name:
            self.problem = "it never got up"
        thread = threading.Thread(target=self._boot)
        thread.start()
        thread.join()

    def _boot(self) -> None:
        event = "failed" if self.problem else "ready"
        self._request.on_boot(event, self)  # type: ignore[arg-type]

    def is_up(self) -> bool:
        return self.started and self.problem is None

    def succeed(self, command: str) -> str:
        for callback in self.callbacks:
            callback()
        self.start()
        if self.problem:
            problem, self.problem = self.problem, None
            raise BootError(node=self.name, problem=problem, console="a kernel panic")
        result = CommandResult(
            command, int(command.startswith("false")), f"out of {command}", "err", 0.1, self.name
        )
        self.history.append(result)
        self._request.on_command(self, result)  # type: ignore[arg-type]
        if result.exit_code:
            raise CommandFailed(result=result) from None
        return result.stdout

    def shell_interact(self) -> None:
        note(f"shell {self.name}")
        print(f"the shell of {self.name}")


class FakeCluster(Mapping[str, FakeMachine]):
    def __init__(self, topology: Topology, request: EngineRequest) -> None:
        self.topology = topology
        self._request = request
        self._machines = {name: FakeMachine(name, request) for name in topology.nodes}

    @property
    def machines(self) -> list[FakeMachine]:
        return list(self._machines.values())

    def __getitem__(self, name: str) -> FakeMachine:
        return self._machines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._machines)

    def __len__(self) -> int:
        return len(self._machines)

    def start_all(self) -> None:
        for machine in self._machines.values():
            machine.start()

    def boot_failures(self) -> Sequence[BootError]:
        broken = [machine for machine in self._machines.values() if machine.problem]
        return [BootError(node=machine.name, problem=str(machine.problem)) for machine in broken]

    def diagnostics(self, name: str) -> Mapping[str, str]:
        if "mute" in name:
            raise RuntimeError("the node is mute")
        if "hanging" in name:
            time.sleep(5)
        return {
            f"{name}: commands": "\n".join(f"$ {each.command}" for each in self[name].history),
            f"{name}: console": "x" * 100_000 + f" end of the console of {name}",
            f"{name}: journal": f"the journal of {name}",
            f"{name}: failed units": "",
        }

    def status(self, name: str) -> str:
        return f"Starting {name}..."

    def has_state(self, name: str) -> bool:
        return True

    def keep(self, name: str, directory: Path) -> None:
        directory.mkdir()
        (directory / "console.log").write_text(f"the console of {name}")
        note(f"keep {name}")

    def close(self) -> None:
        note(f"close {' '.join(self)}")
        for machine in self._machines.values():
            if machine.started:
                self._request.on_boot("stopped", machine)  # type: ignore[arg-type]
        if any("sticky" in name for name in self):
            raise RuntimeError("a node would not stop")


def evaluate(reference: Path | str) -> NixTest:
    reference = str(reference)
    if record := os.environ.get("FAKE_RECORD"):
        with Path(record).open("a") as file:
            file.write(f"evaluate {reference.rpartition('/')[2]}\n")
    place, _, attribute = reference.partition("#")
    path = Path(place) if place.endswith(".nix") else Path(place) / "flake.nix"
    text = path.read_text()
    first = text.partition("\n")[0].removeprefix("#").strip()
    said: dict[str, Any] = json.loads(first) if first.startswith("{") else {}
    if "problem" in said:
        raise ConfigError(problem=said["problem"], value=path.name)
    found = re.search(r"testScript\s*=.*?''\n(?P<script>.*?)\n\s*'';", text, re.DOTALL)
    assert found is not None, text
    nodes = {name: Node(**node) for name, node in said.get("nodes", {"machine": {}}).items()}
    return NixTest(
        name=attribute or path.stem,
        nodes=tuple(nodes),
        topology=Topology(nodes),
        script=textwrap.dedent(found["script"]) + "\n",
        file=path,
        vm_only=said.get("vm_only", {}),
        host_names=said.get("host_names", {}),
        timeout=said.get("timeout"),
        facts={},
    )


class FakeEngine:
    def __init__(self, request: EngineRequest) -> None:
        note(f"engine {request.settings.image} {' '.join(sorted(request.image_kinds))}".rstrip())
        self._request = request

    def check(self, topology: Topology, *, directories: Sequence[Path] = ()) -> None:
        for name, node in topology.nodes.items():
            if node.image == "unavailable":
                raise HostError(problem="no user namespaces", mend="sysctl -w user.max_user_namespaces=1000")
            if node.image == "no-sandbox":
                raise NspawnError("the sandbox is gone")
            for config in node.configs:
                if not any((directory / config).exists() for directory in directories):
                    raise ConfigError(
                        problem="there is no such config", node=name, value=str(config), hint="mend it"
                    )

    def boot(
        self,
        topology: Topology,
        *,
        directories: Sequence[Path] = (),
        start: bool = True,
        slow_job: float | None = None,
    ) -> FakeCluster:
        self.check(topology, directories=directories)
        for name, node in topology.nodes.items():
            args = list(node.nspawn_options)
            self._request.node_args(node, args, name)
            if args:
                note(f"args {name} {' '.join(args)}")
        note(f"boot {' '.join(topology.nodes)}")
        cluster = FakeCluster(topology, self._request)
        if start:
            cluster.start_all()
        return cluster

    def nix_test(
        self, reference: Path | str, *, directories: Sequence[Path] = (), check: Callable[[Outline], None]
    ) -> NixTest:
        test = evaluate(reference)
        check(test)
        return test

    def close(self) -> None:
        note("engine closed")
