"""From a topology with NixOS configurations to built systems and what is known of them."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_nspawn import naming
from pytest_nspawn.errors import NixError
from pytest_nspawn.model import Config, Topology
from pytest_nspawn.naming import Wiring
from pytest_nspawn.nixbuild import nix, nixpkgs, problems, reads
from pytest_nspawn.nixbuild.cache import Entry
from pytest_nspawn.nixbuild.facts import Facts, facts_of
from pytest_nspawn.nixbuild.nixpkgs import Nixpkgs
from pytest_nspawn.nixbuild.request import Request, node_request, peer
from pytest_nspawn.nixbuild.test import NixTest, Outline, outline_of, test_of

HOME = Path(__file__).resolve().parent.parent / "nixos"
"""The Nix code of this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Builds what Nix has to build; `option` is --nspawn-nixpkgs, `on_status` hears what goes on, and None at the end."""

    option: str | None = None
    on_status: Callable[[str | None], None] = lambda _status: None

    def nixpkgs(self, directories: Sequence[Path]) -> Nixpkgs:
        """The nixpkgs to build with. Raises ConfigError, and HostError where there is no Nix."""
        nix.require("a NixOS configuration")
        return nixpkgs.find(self.option, directories, nix.environment())

    def build(
        self, topology: Topology, configs: Mapping[str, tuple[Config, ...]], directories: Sequence[Path]
    ) -> dict[str, Facts]:
        """Build the systems of the nodes that have `configs` (absolute paths), together. Raises NixError, ConfigError.

        A network with a name gets its number once all networks are known, which some configs say: then the nodes are
        evaluated once more, with the addresses that this comes to.
        """
        source = self.nixpkgs(directories)
        wiring = naming.plan_wiring(topology)
        networks = {name: topology.nodes[name].networks for name in configs}
        facts: dict[str, Facts] = {}
        for _attempt in range(2):
            request = Request(
                nixpkgs=source,
                nodes={
                    name: node_request(name, topology.nodes[name], configs[name], wiring, networks[name])
                    for name in configs
                },
                peers={name: peer(name, wiring) for name in topology.nodes if name not in configs},
            )
            with contextlib.closing(self._results(request, "nodes")) as results:
                facts = {name: facts_of(name, entry) for name, entry in next(results).items()}
            wiring = naming.plan_wiring(with_facts(topology, facts), interfaces_of(facts))
            if _agree(facts, wiring):
                break
        return facts

    def outline(self, reference: Config, directories: Sequence[Path]) -> Outline:
        """Evaluate an existing NixOS test, as far as that needs nothing built. Raises NixError, ConfigError, HostError.

        `reference` is an absolute path, such a path with `#` and the name of one of its tests, or a flake reference
        with an attribute.
        """
        request = Request(nixpkgs=self.nixpkgs(directories), test=reference)
        with contextlib.closing(self._results(request, "outline")) as results:
            return outline_of(next(results), reference)

    def test(
        self,
        reference: Config,
        directories: Sequence[Path],
        check: Callable[[Outline], None],
        *,
        interactive: bool = False,
    ) -> NixTest:
        """Evaluate an existing NixOS test and build its nodes. Raises NixError, ConfigError, HostError.

        `check` is shown the test before anything is built; what it raises ends this. With `interactive`, the nodes are
        those of the test's interactive use.
        """
        request = Request(nixpkgs=self.nixpkgs(directories), test=reference, interactive=interactive)
        with contextlib.closing(self._results(request, "outline", "test")) as results:
            check(outline_of(next(results), reference))
            return test_of(next(results), reference)

    def _results(self, request: Request, *attributes: str) -> Generator[dict[str, Any]]:
        """The JSON of each of some attributes of evaluate.nix, built when it is asked for.

        They come from the cache where nothing that their evaluation read changed.
        """
        entry = Entry(f"{'-'.join(attributes)}-{request.key(nix.environment())}")
        with entry.locked():
            found = entry.find()
            for path in found:
                yield json.loads(path.read_text(encoding="utf-8"))
            if len(found) == len(attributes):
                return
            paths: list[Path] = []
            try:
                evaluated = self._evaluate(attributes, request, entry)
                try:
                    for attribute, derivation in zip(attributes, evaluated.derivations, strict=False):
                        paths.append(self._made(attribute, derivation, request, entry))
                        if len(paths) > len(found):
                            yield json.loads(paths[-1].read_text(encoding="utf-8"))
                finally:
                    entry.remember(paths, evaluated.reads)
            finally:
                self.on_status(None)
            if evaluated.problem is not None:
                raise evaluated.problem

    def _evaluate(self, attributes: Sequence[str], request: Request, entry: Entry) -> _Evaluated:
        path = request.write(entry.directory)
        since = time.time_ns()
        with tempfile.NamedTemporaryFile("r", prefix="nspawn-reads-", encoding="ascii") as trace:
            prefix = [*reads.STRACE, "-o", trace.name] if _can_trace() else []
            outcome = nix.instantiate(
                HOME / "evaluate.nix",
                attributes,
                {"request": str(path)},
                self._status("evaluating"),
                prefix=prefix,
            )
            touched = reads.parse(trace) if prefix else None
        known = None
        if touched is not None:
            trusted = request.nixpkgs.path or str(HOME)
            known = reads.signatures(touched, since=since, trusted=trusted, own=str(entry.directory))
        problem = None if outcome.ok else problems.of_evaluation(outcome.log, request, entry.directory)
        return _Evaluated(derivations=outcome.output, reads=known, problem=problem)

    def _made(self, attribute: str, derivation: str, request: Request, entry: Entry) -> Path:
        """The file that a derivation is built to; an outline is in the derivation itself."""
        if attribute == "outline":
            return entry.write(attribute, nix.binding(derivation, "text"))
        built = nix.realise(derivation, entry.root(), self._status("building"))
        if not built.ok:
            raise problems.of_build(built.log, request)
        result = Path(built.output[-1])
        if not result.is_file():
            raise NixError(problem="Nix gave no result", node=None, message=str(result), place=None)
        return result.resolve()

    def _status(self, phase: str) -> Callable[[str], None]:
        self.on_status(phase)
        return self.on_status


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluated:
    """What an evaluation came to: derivations (those before its error, too), what it read, and its error."""

    derivations: Sequence[str]
    reads: reads.Reads | None
    problem: NixError | None


def _can_trace() -> bool:
    return shutil.which(reads.STRACE[0]) is not None


def with_facts(topology: Topology, facts: Mapping[str, Facts]) -> Topology:
    """The topology with the networks that the systems say they are in."""
    nodes = {
        name: node.in_networks(dict.fromkeys(each.network for each in facts[name].interfaces or ()))
        if name in facts and facts[name].interfaces is not None
        else node
        for name, node in topology.nodes.items()
    }
    return Topology(nodes, topology.networks, topology.name)


def interfaces_of(facts: Mapping[str, Facts]) -> dict[str, list[naming.Wanted]]:
    """The interfaces that systems have by their configuration."""
    return {
        name: [
            naming.Wanted(ifname=each.name, network=each.network, addressed=each.address4 is not None)
            for each in known.interfaces
        ]
        for name, known in facts.items()
        if known.interfaces is not None
    }


def _agree(facts: Mapping[str, Facts], wiring: Wiring) -> bool:
    """Whether the systems have the addresses that the wiring gives them."""
    for name, known in facts.items():
        planned = {
            link.ifname: str(link.address4.ip) for link in wiring.links[name] if link.address4 is not None
        }
        has = {each.name: each.address4 for each in known.interfaces or () if each.address4 is not None}
        if planned != has:
            return False
    return True
