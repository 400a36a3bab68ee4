"""An unchanged configuration costs no Nix, and no change is ever missed: real evaluations with the stand-in."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_nspawn import Node, Topology, process
from pytest_nspawn.nixbuild import Builder


class Counted:
    """Builds one node, and says whether Nix was run for it."""

    def __init__(self, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._standin = standin
        self.calls: list[str] = []
        real = process.run_aloud

        def counted(argv: list[str], **keywords: Any) -> tuple[int, str]:
            self.calls.append(next(word for word in argv if word.startswith("nix-")))
            return real(argv, **keywords)

        monkeypatch.setattr(process, "run_aloud", counted)

    def __call__(self, config: Path | str) -> tuple[str, bool]:
        self.calls.clear()
        builder = Builder(option=str(self._standin))
        facts = builder.build(Topology({"one": Node(config)}), {"one": (config,)}, [])
        return facts["one"].system, bool(self.calls)


@pytest.fixture
def build(standin: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(standin, monkeypatch)


def settled(path: Path) -> None:
    """Make a file look as if it had been written a while ago; files just written are not trusted."""
    while path.stat().st_ctime_ns > time.time_ns() - 50_000_000:
        os.sched_yield()


def config(home: Path, text: str) -> Path:
    path = home / "one.nix"
    path.write_text(text)
    settled(path)
    return path


ETC = "{{ environment.etc.which.text = {}; }}"


def test_nothing_is_run_where_nothing_changed(build: Counted, tmp_path: Path) -> None:
    path = config(tmp_path, ETC.format('"x"'))
    first = build(path)
    assert first[1]
    assert build(path) == (first[0], False)


def test_nix_text_is_remembered_by_what_it_says(build: Counted) -> None:
    text = ETC.format(f'"{time.time_ns()}"')
    first = build(text)
    assert build(text) == (first[0], False)
    assert build(text.replace('"', '"y', 1))[1]


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("expression", "change"),
    [
        pytest.param("''x''", lambda home: (home / "one.nix").write_text(ETC.format('"y"')), id="the config"),
        pytest.param(
            "import ./other.nix", lambda home: (home / "other.nix").write_text('"y"'), id="imported"
        ),
        pytest.param("builtins.readFile ./text", lambda home: (home / "text").write_text("y"), id="read"),
        pytest.param(
            "if builtins.pathExists ./new then ''new'' else ''none''",
            lambda home: (home / "new").touch(),
            id="missing before",
        ),
        pytest.param(
            "if builtins.pathExists ./text then ''old'' else ''none''",
            lambda home: (home / "text").unlink(),
            id="gone",
        ),
        pytest.param(
            "toString (builtins.attrNames (builtins.readDir ./list))",
            lambda home: (home / "list" / "more").touch(),
            id="listed",
        ),
        pytest.param(
            "builtins.readFile ./link",
            lambda home: ((home / "link").unlink(), (home / "link").symlink_to("text2")),
            id="a link leads elsewhere",
        ),
        pytest.param(
            "builtins.readFile ./link", lambda home: (home / "text").write_text("y"), id="behind a link"
        ),
        pytest.param(
            "builtins.readFile (./list + ''/a'')",
            lambda home: (home / "list" / "a").write_text("y"),
            id="same size",
        ),
    ],
)
def test_a_change_is_seen(build: Counted, tmp_path: Path, expression: str, change: Change) -> None:
    for name, text in {"other.nix": '"x"', "text": "x", "text2": "z"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "a").write_text("x")
    (tmp_path / "link").symlink_to("text")
    path = config(tmp_path, ETC.format(expression))
    first, _ = build(path)
    assert build(path) == (first, False)
    change(tmp_path)
    second, run = build(path)
    assert run
    assert second != first


def test_variables_that_nix_sees_count(
    build: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, ETC.format('builtins.getEnv "NIX_TEST_WHICH"'))
    monkeypatch.setenv("NIX_TEST_WHICH", "x")
    first, _ = build(path)
    monkeypatch.setenv("NIX_TEST_WHICH", "y")
    second, run = build(path)
    assert run
    assert second != first
    monkeypatch.setenv("NIX_TEST_WHICH", "x")
    assert build(path) == (first, False)


def test_what_asks_for_the_time_is_never_remembered(build: Counted, tmp_path: Path) -> None:
    path = config(tmp_path, ETC.format("toString builtins.currentTime"))
    build(path)
    assert build(path)[1]


def test_a_result_that_is_gone_is_built_again(build: Counted, tmp_path: Path) -> None:
    path = config(tmp_path, ETC.format(f'"{time.time_ns()}"'))
    system, _ = build(path)
    roots = list(Path(os.environ["XDG_CACHE_HOME"]).rglob("root-*"))
    mine = [root for root in roots if system in root.read_text()]
    assert mine, "no link keeps the result from the garbage collector"
    [result] = {root.resolve() for root in mine}
    for root in mine:
        root.unlink()
    subprocess.run(["nix-store", "--delete", result], check=True, capture_output=True)
    assert build(path) == (system, True)


def test_several_at_once_build_once(standin: Path, tmp_path: Path, build: Counted) -> None:
    path = config(tmp_path, ETC.format(f'"{time.time_ns()}"'))
    results: list[str] = []

    def work() -> None:
        facts = Builder(option=str(standin)).build(Topology({"one": Node(path)}), {"one": (path,)}, [])
        results.append(facts["one"].system)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert build.calls == ["nix-instantiate", "nix-store"]
