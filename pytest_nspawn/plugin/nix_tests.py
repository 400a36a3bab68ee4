"""Existing NixOS tests as pytest items: `pytest foo.nix`, `flake.nix::checks.x86_64-linux.foo`, a glob in the ini file.

Nothing is evaluated when they are collected. Set-up evaluates and builds, then the script runs in the world that it
expects (`driver`), with pytest's assertions and subtests.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest._code import Traceback

from pytest_nspawn import timing
from pytest_nspawn.errors import NspawnError
from pytest_nspawn.plugin.parts import Parts, StoppedAtSubtest
from pytest_nspawn.plugin.run import refuse, run_key

if TYPE_CHECKING:
    from pytest_nspawn.machine import Machine
    from pytest_nspawn.model import Node
    from pytest_nspawn.nixbuild import Outline
    from pytest_nspawn.plugin.fixtures import Nspawn

SCRIPT = "testScript"
FLAKE = "flake.nix"

_SHOWN = 12
"""Lines of a script that a failure shows before the one that failed."""

_found_key = pytest.StashKey[Mapping[Path, Sequence[str]]]()


# Collection


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take `DIR#checks.x86_64-linux.foo` for `DIR/flake.nix::checks.x86_64-linux.foo`."""
    config.args[:] = [_as_path(argument, config.invocation_params.dir) for argument in config.args]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the .nix files that were asked for, and those of the ini's globs that look like tests."""
    if file_path.suffix != ".nix":
        return None
    is_flake = file_path.name == FLAKE
    names = _globbed(parent.config).get(file_path)
    is_wanted = bool(names) or (names is not None and not is_flake and looks_like_a_test(file_path))
    if is_wanted or parent.session.isinitpath(file_path):
        return (FlakeFile if is_flake else NixFile).from_parent(parent, path=file_path)
    return None


def looks_like_a_test(path: Path) -> bool:
    """Whether a file has what a NixOS test has: a script, and machines to run it on."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    text = re.sub(r"#[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    return all(re.search(rf"\b({words})\b", text) for words in ("testScript", "nodes|machine|containers"))


def _globbed(config: pytest.Config) -> Mapping[Path, Sequence[str]]:
    """The files of `nspawn_nix_tests`, relative to the ini file, with the names of tests that it has of each."""
    found = config.stash.get(_found_key, None)
    if found is None:
        base = config.inipath.parent if config.inipath is not None else config.rootpath
        patterns: list[str] = config.getini("nspawn_nix_tests")
        named: dict[Path, list[str]] = {}
        for pattern in patterns:
            files, _, name = pattern.partition("::")
            for path in base.glob(os.path.relpath(base / files, base)):
                named.setdefault(path, []).extend([name] if name else [])
        config.stash[_found_key] = found = named
    return found


def _as_path(argument: str, base: Path) -> str:
    directory, hash_, attribute = argument.partition("#")
    if not hash_ or not attribute or (base / argument.partition("::")[0]).exists():
        return argument
    flake = base / (directory or ".") / FLAKE
    return f"{os.path.relpath(flake, base)}::{attribute}" if flake.exists() else argument


class NixFile(pytest.Module):
    """A .nix file with one NixOS test."""

    def _getobj(self) -> types.ModuleType:
        # pytest would import the file: there is nothing to import.
        return types.ModuleType(self.path.stem)

    def collect(self) -> Iterable[pytest.Item]:
        """One item, the script; of a file with several tests those that are named."""
        names = [name for name in self._asked() if name != SCRIPT]
        for name in names:
            yield NixItem.of(self, name, f"{self.path}#{name}")
        if not names:
            yield NixItem.of(self, SCRIPT, self.path)

    def _asked(self) -> list[str]:
        """What the command line names of this file, else the ini file; which tests it has only Nix could tell."""
        base = self.config.invocation_params.dir
        asked = [argument.split("::") for argument in self.config.args]
        named = [
            words[1]
            for words in asked
            if len(words) > 1 and (base / words[0]).resolve() == self.path.resolve()
        ]
        return named or list(_globbed(self.config).get(self.path, ()))


class FlakeFile(NixFile):
    """A flake; each check that was asked for is an item."""

    def collect(self) -> Iterable[pytest.Item]:
        """The checks that are named."""
        names = self._asked()
        if not names:
            raise self.CollectError(
                f"{self.path}: which of its checks? Say pytest {FLAKE}::checks.x86_64-linux.NAME, "
                "or .#checks.x86_64-linux.NAME (`nix flake show` lists them)"
            )
        for name in dict.fromkeys(names):
            yield NixItem.of(self, name, f"{self.path.parent}#{name}")


class NixItem(pytest.Function):
    """One testScript."""

    reference: Path | str

    @classmethod
    def of(cls, parent: pytest.Collector, name: str, reference: Path | str) -> NixItem:
        """The item of a test: its file, or a flake with an attribute."""
        item: NixItem = cls.from_parent(parent, name=name, callobj=_run)
        item.reference = reference
        return item

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Where it stands: in the .nix file, not in the function that runs it."""
        # Not the name alone: pytest prints dots at the end of an ID as "::".
        return self.path, 0, f"{self.name} of {self.path.name}"

    def _traceback_filter(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Traceback:
        # As pytest does for a TestCase: what is between `t.assertEqual(...)` and its failure tells nothing.
        found = super()._traceback_filter(excinfo)
        ours = found.filter(lambda entry: not entry.frame.f_globals.get("__unittest"))
        if not ours or len(ours) == len(found):
            return found
        return Traceback([*ours[:-1], ours[-1].with_repr_style("long")])

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        """The failure with the script's lines near it: pytest would show the script from its beginning."""
        if isinstance(excinfo.value, StoppedAtSubtest):
            return str(excinfo.value)
        shown = super().repr_failure(excinfo)
        for traceback, _crash, _text in getattr(shown, "chain", ()):
            for entry in traceback.reprentries:
                lines = getattr(entry, "lines", [])
                failing = next((index for index, line in enumerate(lines) if line.startswith(">")), 0)
                if failing > _SHOWN and _is_script(entry):
                    entry.lines = lines[failing - _SHOWN :]
        return shown


def _is_script(entry: Any) -> bool:
    path = str(getattr(entry.reprfileloc, "path", ""))
    return path.endswith(".nix") or path.startswith(f"<{SCRIPT}")


# What runs


def _run(_nspawn_script: Callable[[], None]) -> None:
    __tracebackhide__ = True
    _nspawn_script()


@pytest.fixture
def _nspawn_script(
    request: pytest.FixtureRequest, nspawn: Nspawn, subtests: pytest.Subtests
) -> Iterator[Callable[[], None]]:
    """Evaluate, build and make ready what a NixOS test needs; gives what runs its script."""
    from pytest_nspawn import driver

    item = request.node
    run = item.config.stash[run_key]
    try:
        test = nspawn.nix_test(item.reference, _skip_unless_it_can_run)
        # As upstream, a node boots when the script starts it, or sends it a command.
        live = nspawn.start(test.topology, start=False, slow_job=timing.default(driver.SLOW_JOB))
    except NspawnError as error:
        refuse(error, item)
    more = contextlib.ExitStack()

    def boot(name: str, node: Node) -> Machine:
        cluster = more.enter_context(nspawn.boot(**{name: node}))
        return cluster[name]

    parts = Parts(subtests, item, keep_going=run.settings.continue_subtests)
    world = driver.Driver(
        live.cluster,  # type: ignore[arg-type]  # the plugin's own protocol names less of it
        driver.script_of(test),
        timeout=timing.default(driver.GLOBAL_TIMEOUT) if test.timeout is None else test.timeout,
        aliases=test.host_names,
        python_path=test.python_path,
        surroundings=driver.Surroundings(
            subtest=parts.subtest,
            debug=driver.Debug(breakpoint=pytest.set_trace),
            compile=_rewritten if item.config.getoption("assertmode") == "rewrite" else None,
            boot=boot,
        ),
    )

    def script() -> None:
        __tracebackhide__ = True
        try:
            world.test_script()
        except BaseException as error:
            parts.said_already(error, SCRIPT)
            raise

    yield script
    world.close()
    with contextlib.ExitStack() as stack:
        stack.callback(live.close)
        stack.callback(more.close)


def _skip_unless_it_can_run(test: Outline) -> None:
    from pytest_nspawn import driver

    verdict = driver.judge(test)
    if not verdict.can_run:
        raise pytest.skip.Exception(verdict.reason, _use_item_location=True)


def _rewritten(tree: ast.Module, filename: str) -> types.CodeType:
    """Code whose assertions tell what they saw, as those of a Python test do."""
    # pytest has no public way to rewrite what is no file on the import path.
    from _pytest.assertion.rewrite import rewrite_asserts

    rewrite_asserts(tree, b"", filename)
    return compile(tree, filename, "exec", dont_inherit=True)
