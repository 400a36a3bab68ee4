"""The flake, evaluated and built by real Nix with the stand-in for nixpkgs: its outputs, mkTest, mkChecks, the template."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.nixos.debian_nixpkgs import given_nixpkgs

from .own_machine import OwnMachine

HOME = Path(__file__).resolve().parents[2]
FLAKES = ("--extra-experimental-features", "nix-command flakes")
SYSTEM = f"{os.uname().machine}-linux"

# What the flake is made of, and what its checks are about.
PARTS = (
    *("LICENSE", "README.md", "pyproject.toml", "flake.nix", "host.nix", "container.nix"),
    *("nix", "templates", "examples", "example_tests", "nixos_tests", "fixtures", "pytest_nspawn", "tests"),
)

NIXPKGS = """{{
  outputs = _: {{
    lib = import {home}/tests/standin/lib.nix;
    legacyPackages.{system} = import {standin} {{
      overlays = [ (import {home}/tests/standin/overlay.nix {{ libraries = ./libraries; }}) ];
    }};
  }};
}}
"""

PROJECT = """{{
  inputs.nixpkgs.url = "nixpkgs";
  inputs.pytest-nspawn.url = "pytest-nspawn";
  outputs = {{ nixpkgs, pytest-nspawn, ... }}: {{
    checks.{system} = pytest-nspawn.lib.mkChecks {{
      pkgs = nixpkgs.legacyPackages.{system};
      tests = ./tests;
      nodes = {{
        client = {{ }};
        web = {{ networking.firewall.enable = false; environment.etc.greeting.text = "hello"; }};
      }};
    }} // {{
      existing = pytest-nspawn.lib.mkTest {{
        pkgs = nixpkgs.legacyPackages.{system};
        nixosTests = [ ./existing.nix ];
      }};
    }};
  }};
}}
"""

PASSES = """
import pytest


@pytest.mark.nodes(web="web", client="client")
def test_two_nodes(web, client):
    assert web.read_text("/etc/greeting") == "hello"
    client.succeed("ping -c 1 -W 5 web")
    assert client.succeed("systemctl is-system-running --wait").strip() == "running"


@pytest.mark.nodes(web="a/config/that/is/built/already.nix")
def test_the_same_name_again(web):
    web.crash()
    web.start()
    web.succeed("true")
"""

EXISTING = """
{ pkgs, ... }:
{
  name = "existing";
  nodes.first = { };
  nodes.second.environment.etc.greeting.text = "hello";
  testScript = { nodes, ... }: ''
    start_all()
    second.wait_for_unit("multi-user.target")
    assert "hello" in second.succeed("cat /etc/greeting")
    first.succeed("ping -c 1 -W 5 ${nodes.second.networking.primaryIPAddress}")
  '';
}
"""

FAILS = """
import pytest


@pytest.mark.nodes(web="web")
def test_something_is_wrong(web):
    web.succeed("echo remembered > /root/note; echo no good; exit 7")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flake:
    """A flake, and how Nix is called with it."""

    directory: Path
    inputs: Sequence[str]

    def command(self, *words: str) -> list[str]:
        return ["nix", *words, *FLAKES, *self.inputs, "--impure", "--no-write-lock-file"]

    def run(self, *words: str) -> str:
        done = self.attempt(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def attempt(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), check=False, capture_output=True, text=True)

    def check(self, name: str) -> str:
        return f"path:{self.directory}#checks.{SYSTEM}.{name}"


@pytest.fixture(scope="module")
def nixpkgs_flake(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flake of the stand-in, with this environment's Python packages."""
    done = subprocess.run(
        ["nix", "flake", "metadata", "--help", *FLAKES], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"this Nix has no flakes: {done.stderr.strip()}")
    directory = tmp_path_factory.mktemp("nixpkgs")
    copy_libraries("pytest-nspawn", directory / "libraries")
    (directory / "flake.nix").write_text(NIXPKGS.format(home=HOME, standin=standin, system=SYSTEM))
    return directory


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it is here, without what lies about in a checkout."""
    directory = tmp_path_factory.mktemp("pytest-nspawn")
    for name in PARTS:
        path = HOME / name
        if path.is_dir():
            shutil.copytree(path, directory / name, ignore=shutil.ignore_patterns("__pycache__", ".cache"))
        elif path.exists():
            shutil.copy(path, directory / name)
    (directory / "docs").mkdir()
    return directory


@pytest.fixture(scope="module")
def own(source: Path, nixpkgs_flake: Path) -> Flake:
    """The project's flake."""
    return Flake(directory=source, inputs=["--override-input", "nixpkgs", f"path:{nixpkgs_flake}"])


@pytest.fixture(scope="module")
def project(source: Path, nixpkgs_flake: Path, tmp_path_factory: pytest.TempPathFactory) -> Flake:
    """Another project that uses it, with a module that passes and one that fails."""
    directory = tmp_path_factory.mktemp("project")
    (directory / "tests").mkdir()
    (directory / "flake.nix").write_text(PROJECT.format(system=SYSTEM))
    (directory / "existing.nix").write_text(f"# {uuid.uuid4()}\n{EXISTING}")
    # What an earlier run has built is no result of this one.
    (directory / "tests/test_good.py").write_text(f"# {uuid.uuid4()}\n{PASSES}")
    (directory / "tests/test_bad.py").write_text(f"# {uuid.uuid4()}\n{FAILS}")
    return Flake(directory=directory, inputs=inputs_of(source, nixpkgs_flake))


def inputs_of(source: Path, nixpkgs: Path) -> list[str]:
    """What a flake that uses the project is given for its inputs."""
    given = {"nixpkgs": nixpkgs, "pytest-nspawn": source, "pytest-nspawn/nixpkgs": nixpkgs}
    return [word for name, path in given.items() for word in ("--override-input", name, f"path:{path}")]


def copy_libraries(name: str, target: Path, seen: set[str] | None = None) -> None:
    """Copy what a distribution needs: what is Python, which any Python may load."""
    seen = set() if seen is None else seen
    if name in seen:
        return
    seen.add(name)
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # of another Python version
    for file in distribution.files or ():
        if name != "pytest-nspawn" and file.suffix != ".pyc" and ".." not in file.parts:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), target / file)
    for requirement in distribution.requires or ():
        if "extra ==" not in requirement:
            copy_libraries(re.split(r"[^\w.-]", requirement)[0], target, seen)


# Evaluated


def test_it_shows_what_it_has(own: Flake) -> None:
    shown = json.loads(own.run("flake", "show", "--json", f"path:{own.directory}"))
    assert set(shown["nixosModules"]) == {"container", "default", "host"}
    assert set(shown["packages"][SYSTEM]) == {"default", "nixos-nspawn", "pytest-nspawn"}
    assert shown["devShells"][SYSTEM]["default"]["type"] == "derivation"
    assert shown["formatter"][SYSTEM]["type"] == "derivation"
    assert shown["templates"]["default"]["type"] == "template"
    assert "default" in shown["overlays"]
    names = set(shown["checks"][SYSTEM])
    assert {"unit", "template", "template-vm", "example-test_web", "example-test_shared"} <= names


def test_everything_of_it_evaluates(own: Flake) -> None:
    own.run("flake", "check", "--no-build", f"path:{own.directory}")


def test_what_needs_no_packages_evaluates_without_impure(source: Path, tmp_path: Path) -> None:
    shutil.copy(HOME / "tests/standin/lib.nix", tmp_path)
    (tmp_path / "flake.nix").write_text("{ outputs = _: { lib = import ./lib.nix; legacyPackages = { }; }; }")
    flake = Flake(directory=source, inputs=["--override-input", "nixpkgs", f"path:{tmp_path}"])
    words = [word for word in flake.command("flake", "check", f"path:{source}") if word != "--impure"]
    subprocess.run(words, check=True, capture_output=True)


@pytest.mark.nixos
def test_it_evaluates_with_a_real_nixpkgs(source: Path) -> None:
    tree = given_nixpkgs()
    if tree is None or not (tree / "flake.nix").exists():
        pytest.skip("NSPAWN_TEST_NIXPKGS names no nixpkgs tree with a flake.nix")
    flake = Flake(directory=source, inputs=["--override-input", "nixpkgs", f"path:{tree}"])
    flake.run("flake", "check", "--no-build", f"path:{source}")


def test_a_change_of_one_test_module_is_none_of_the_others(project: Flake, tmp_path: Path) -> None:
    changed = Flake(directory=tmp_path / "changed", inputs=project.inputs)
    shutil.copytree(project.directory, changed.directory)

    def derivations(flake: Flake) -> dict[str, str]:
        words = ("eval", "--json", f"path:{flake.directory}#checks.{SYSTEM}")
        found: dict[str, str] = json.loads(
            flake.run(*words, "--apply", "builtins.mapAttrs (_: check: check.drvPath)")
        )
        return found

    before = derivations(changed)
    (changed.directory / "tests/test_bad.py").write_text(FAILS + "\n# another line\n")
    after = derivations(changed)
    assert set(before) == {"existing", "test_bad", "test_good"}
    assert after["existing"] == before["existing"]
    assert after["test_good"] == before["test_good"]
    assert after["test_bad"] != before["test_bad"]


def test_a_nixpkgs_with_an_old_pytest_is_told_so(own: Flake, source: Path) -> None:
    expression = f"""
      (import {source}/nix/lib.nix {{ nixpkgs = {{ lib = import {HOME}/tests/standin/lib.nix; }}; }}).mkTest {{
        pkgs = {{ path = {HOME}/tests/standin; lib = import {HOME}/tests/standin/lib.nix; stdenv.hostPlatform.system = "x"; python3.pkgs.pytest.version = "8.4"; writeText = _: _: "x"; writeShellScript = _: text: text; runCommand = _: _: text: {{ inherit text; }}; bash = "x"; iproute2 = "x"; systemd = "x"; util-linux = "x"; coreutils = "x"; gnugrep = "x"; gnutar = "x"; }};
      }}
    """
    done = own.attempt("eval", "--expr", f"({expression}).text")
    assert done.returncode
    assert "pytest-nspawn needs pytest 9.1 or newer, and this nixpkgs has 8.4" in done.stderr


# Built, without a sandbox: by any Nix


def build(flake: Flake, target: str) -> subprocess.CompletedProcess[str]:
    # No user of Nix's own: root's tests boot nodes. Elsewhere, the sandbox is what makes a build root.
    options = ("--option", "system-features", "uid-range", "--option", "build-users-group", "")
    return flake.attempt("build", "--no-link", "--json", "--print-build-logs", *options, target)


def results(done: subprocess.CompletedProcess[str]) -> tuple[Path, Any]:
    assert done.returncode == 0, done.stderr
    out = Path(json.loads(done.stdout)[0]["outputs"]["out"])
    suite = ET.parse(out / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    return out, suite


def test_a_check_runs_pytest_on_booted_nodes(can_boot: None, project: Flake) -> None:
    _out, suite = results(build(project, project.check("test_good")))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "0")


def test_a_check_runs_an_existing_nixos_test(can_boot: None, project: Flake) -> None:
    _out, suite = results(build(project, project.check("existing")))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "0")


def test_a_check_that_fails_says_why(can_boot: None, project: Flake) -> None:
    done = build(project, project.check("test_bad"))
    assert done.returncode
    for line in (
        'web.succeed("echo remembered > /root/note; echo no good; exit 7")',
        "failed (exit code 7, expected exit code 0)",
        "no good",
        "web: console",
        "web: journal",
    ):
        assert line in done.stderr
    derivation = project.run("eval", "--raw", f"{project.check('test_bad')}.drvPath")
    assert "failed (exit code 7" in project.run("log", derivation)


def test_the_report_of_a_check_keeps_what_failed_nodes_wrote(can_boot: None, project: Flake) -> None:
    out, suite = results(build(project, f"{project.check('test_bad')}.report"))
    assert suite.get("failures") == "1"
    assert (out / "status").read_text() == "1\n"
    (kept,) = (out / "nodes").glob("*/web")
    assert (kept / "root/root/note").read_text() == "remembered\n"
    assert (kept / "root/var/log/journal").is_dir()
    assert "Welcome to" in (kept / "console.log").read_text()


def test_the_template_is_a_flake_that_works(
    can_boot: None, source: Path, nixpkgs_flake: Path, tmp_path: Path
) -> None:
    # A template's own flake has to be locked, and cannot be told other inputs.
    locked, directory = tmp_path / "locked", tmp_path / "made"
    shutil.copytree(source, locked)
    override = ("--override-input", "nixpkgs", f"path:{nixpkgs_flake}")
    subprocess.run(["nix", "flake", "lock", f"path:{locked}", *override, *FLAKES], check=True)
    directory.mkdir()
    words = ["nix", "flake", "init", "--template", f"path:{locked}", *FLAKES]
    subprocess.run(words, cwd=directory, check=True)
    flake = Flake(directory=directory, inputs=inputs_of(source, nixpkgs_flake))
    flake.run("flake", "check", "--no-build", f"path:{directory}")
    _out, suite = results(build(flake, flake.check("test_web")))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "0")


# Built in a sandbox, by the stand-in's own Nix


@pytest.fixture
def sandboxed(project: Flake, tmp_path: Path) -> Flake:
    """The same project, a little different: what is built without a sandbox is no result of it."""
    flake = Flake(directory=tmp_path / "project", inputs=project.inputs)
    shutil.copytree(project.directory, flake.directory)
    for path in (flake.directory / "tests").iterdir():
        path.write_text(f"# in a sandbox\n{path.read_text()}")
    return flake


@pytest.fixture
def own_machine(
    can_boot: None, standin: Path, source: Path, nixpkgs_flake: Path, tmp_path: Path
) -> OwnMachine:
    if os.getuid():
        pytest.skip("only root can hand a build 65536 user ids")
    shown = (HOME, source, nixpkgs_flake, tmp_path)
    return OwnMachine(programs=(standin / "machine").resolve(), root=tmp_path / "machine", shown=shown)


def test_two_nodes_boot_in_a_sandboxed_build(own_machine: OwnMachine, sandboxed: Flake) -> None:
    target = sandboxed.check("test_good")
    done = own_machine.run(*sandboxed.command("build", "--no-link", "--print-build-logs", target))
    assert done.returncode == 0, done.stderr
    assert "2 passed" in done.stderr


def test_a_failure_in_a_sandboxed_build_is_in_its_log(own_machine: OwnMachine, sandboxed: Flake) -> None:
    target = sandboxed.check("test_bad")
    script = shlex.join(sandboxed.command("build", "--no-link", target))
    derivation = shlex.join(sandboxed.command("eval", "--raw", f"{target}.drvPath"))
    done = own_machine.run("sh", "-c", f'! {script} && nix log "$({derivation})"')
    assert done.returncode == 0, done.stderr
    assert "failed (exit code 7, expected exit code 0)" in done.stdout
    assert "Welcome to" in done.stdout
