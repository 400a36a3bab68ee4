"""Our own NixOS tests, run unchanged: on the stand-in for nixpkgs, and on a real one where there is one.

NSPAWN_TEST_NIXPKGS names a real nixpkgs. Each is one run of pytest over all files, whose outcomes the tests look up.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_nspawn.cluster import Engine, EngineOptions
from tests.nixos.given import buildable_nixpkgs

HOME = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in (HOME / "nixos_tests").glob("*.nix") if path.name != "make-test.nix")
SPECIAL = ("failing.nix", "needs-vm.nix")

pytestmark = pytest.mark.usefixtures("can_boot")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What JUnit's file says of a test: `passed`, `failed`, `skipped` or `error`, why, and its properties."""

    verdict: str
    text: str
    properties: Mapping[str, str]


def run_all(nixpkgs: str, directory: Path) -> dict[str, Outcome]:
    """One run of pytest over all files; outcomes by file."""
    ini = directory / "pytest.ini"
    ini.write_text("[pytest]\n")
    report = directory / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(ini),
        "--rootdir",
        str(HOME),
        "-p",
        "no:cacheprovider",
    ]
    command += ["--nspawn-nixpkgs", nixpkgs, "--nspawn-keep", "never", "--junitxml", str(report)]
    finished = subprocess.run(
        [*command, *map(str, FILES)], cwd=directory, capture_output=True, text=True, check=False, timeout=1500
    )
    assert report.exists(), finished.stdout + finished.stderr
    outcomes = {}
    for case in ET.parse(report).iter("testcase"):
        found = next((kind for kind in ("error", "failure", "skipped") if case.find(kind) is not None), None)
        element = case.find(found) if found is not None else None
        outcomes[str(case.get("classname")).rpartition("nixos_tests.")[2]] = Outcome(
            {"failure": "failed", None: "passed"}.get(found, found or ""),
            "" if element is None else f"{element.get('message')}\n{element.text}",
            {str(each.get("name")): str(each.get("value")) for each in case.iter("property")},
        )
    return outcomes


@pytest.fixture(scope="session")
def on_standin(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    return run_all(str(standin), tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="session")
def on_nixos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    with pytest.MonkeyPatch.context() as patch:
        return run_all(str(buildable_nixpkgs(patch)), tmp_path_factory.mktemp("nixos"))


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 15


@pytest.mark.parametrize("file", [path.name for path in FILES if path.name not in SPECIAL])
def test_on_the_stand_in(on_standin: dict[str, Outcome], file: str) -> None:
    outcome = on_standin[file]
    assert outcome.verdict == "passed", outcome.text


@pytest.mark.nixos
@pytest.mark.parametrize("file", [path.name for path in FILES if path.name not in SPECIAL])
def test_on_nixos(on_nixos: dict[str, Outcome], file: str) -> None:
    outcome = on_nixos[file]
    assert outcome.verdict == "passed", outcome.text


def test_a_failing_one_fails_where_it_says(on_standin: dict[str, Outcome]) -> None:
    outcome = on_standin["failing.nix"]
    lines = (HOME / "nixos_tests" / "failing.nix").read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if "forty-two" in line)
    assert outcome.verdict == "failed"
    assert f"failing.nix:{number}: AssertionError" in outcome.text
    assert "'forty-one' == 'forty-two'" in outcome.text
    assert {name: value.partition(",")[0] for name, value in outcome.properties.items()} == {
        "subtest[this one is well]": "passed",
        "subtest[this one is not]": "failed",
    }


def test_one_that_needs_a_virtual_machine_is_skipped_and_says_why(on_standin: dict[str, Outcome]) -> None:
    outcome = on_standin["needs-vm.nix"]
    assert outcome.verdict == "skipped"
    for reason in ("boot.kernelModules", "virtualisation.qemu", "screenshot()", "send_key()"):
        assert reason in outcome.text


VM_ONLY = """
{ pkgs, ... }:
{
  name = "unbuildable";
  nodes.machine = {
    boot.kernelModules = [ "loop" ];
    environment.etc.x.source = %s;
  };
  testScript = "machine.start()";
}
"""


@pytest.mark.parametrize(
    "value",
    [
        pytest.param('pkgs.runCommand "broken" { } "exit 3"', id="does not build"),
        pytest.param('throw "of no use"', id="does not evaluate"),
    ],
)
def test_nothing_is_built_of_one_that_needs_a_virtual_machine(
    standin: Path, tmp_path: Path, value: str
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "vm.nix").write_text(VM_ONLY % value)
    for _again in range(2):  # the second finds what the first remembered
        ran = call("-q", "-rs", f"--nspawn-nixpkgs={standin}", "vm.nix", cwd=tmp_path)
        assert ran.returncode == 0, ran.stdout
        assert "1 skipped" in ran.stdout
        assert "unbuildable needs a virtual machine: node machine: boot.kernelModules" in ran.stdout


def test_tests_of_nixpkgs_itself(standin: Path, tmp_path: Path) -> None:
    nixpkgs = tmp_path / "nixpkgs"
    tests = nixpkgs / "nixos/tests"
    tests.mkdir(parents=True)
    (nixpkgs / "default.nix").symlink_to(standin / "default.nix")
    (nixpkgs / "nixos/lib").symlink_to(standin / "nixos/lib")
    (nixpkgs / "pytest.ini").write_text("[pytest]\n")
    (tests / "make-test-python.nix").write_text('throw "it would make virtual machines"')
    (tests / "foo.nix").write_text(
        'import ./make-test-python.nix ({ pkgs, ... }: { name = "foo"; nodes.machine = { }; testScript = "machine.start()"; })'
    )
    ran = call("-q", "nixos/tests/foo.nix", cwd=nixpkgs)
    assert ran.returncode == 0, ran.stdout


def test_subtests_are_properties(on_standin: dict[str, Outcome]) -> None:
    properties = on_standin["subtests.nix"].properties
    assert list(properties) == [
        "subtest[the machine boots]",
        "subtest[number 1 is there]",
        "subtest[number 2 is there]",
        "subtest[number 3 is there]",
        "subtest[there is no other]",
    ]
    assert all(value.startswith("passed, ") for value in properties.values())


FLAKE = """\
{
  outputs = { self }: {
    checks.x86_64-linux.web = import ./web.nix;
    checks.x86_64-linux.broken = throw "this check does not evaluate";
  };
}
"""


@pytest.fixture
def flake(tmp_path: Path) -> Path:
    (tmp_path / "flake.nix").write_text(FLAKE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "web.nix").write_text((HOME / "nixos_tests" / "web.nix").read_text())
    return tmp_path


def call(*arguments: str, cwd: Path, module: str = "pytest") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flake has checks for x86_64 only")
@pytest.mark.parametrize("prefix", ["flake.nix::", ".#"])
def test_checks_of_a_flake(standin: Path, flake: Path, prefix: str) -> None:
    names = [f"{prefix}checks.x86_64-linux.{name}" for name in ("web", "broken", "absent")]
    # With `=`: pytest takes any other word that is a directory for one of its arguments when it looks for the ini file.
    said = call("-v", f"--nspawn-nixpkgs={standin}", "--nspawn-keep=never", *names, cwd=flake).stdout
    assert "flake.nix::checks.x86_64-linux.web PASSED" in said
    assert "this check does not evaluate" in said
    assert "has no attribute checks.x86_64-linux.absent" in said
    assert "1 passed, 2 errors" in said


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flake has checks for x86_64 only")
def test_commands_on_a_check_of_a_flake(standin: Path, flake: Path) -> None:
    options = ("--nixpkgs", str(standin), ".#checks.x86_64-linux.web")
    assert (
        call("explain", *options, cwd=flake, module="pytest_nspawn").stdout
        == "web: runs as containers (machine)\n"
    )
    wrote = call("convert", *options, cwd=flake, module="pytest_nspawn")
    assert wrote.stdout == "wrote test_web.py\n", wrote.stderr
    nixpkgs = f"--nspawn-nixpkgs={standin}"
    ran = call("-q", "--nspawn-keep=never", nixpkgs, "test_web.py", cwd=flake)
    assert "1 passed" in ran.stdout, ran.stdout


@pytest.mark.parametrize("with_facts", [True, False])
def test_a_manifest_runs_no_nix(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_facts: bool
) -> None:
    """What CI builds ahead: the test's nodes, and its script, as JSON."""
    path = tmp_path / "foo.nix"
    path.write_text((HOME / "nixos_tests" / "web.nix").read_text())
    with Engine(EngineOptions(nixpkgs=str(standin))) as engine:
        test = engine.nix_test(path)
    script = {"name": test.name, "testScript": test.script, "file": str(path)}
    nodes = {
        name: {
            "system": known.system,
            "interfaces": [dataclasses.asdict(each) for each in known.interfaces or ()],
        }
        if with_facts
        else known.system
        for name, known in test.facts.items()
    }
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"foo.nix": {**script, "nodes": nodes}}))
    for program in ("nix", "nix-build", "nix-instantiate", "nix-store"):
        (tmp_path / program).write_text("#!/bin/sh\necho 'Nix was run' >&2; exit 99\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ran = call(
        "-q",
        "-c",
        os.devnull,
        "--nspawn-keep=never",
        "--nspawn-manifest",
        str(manifest),
        "foo.nix",
        cwd=tmp_path,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


PACKAGES = """
{ pkgs, ... }:
(pkgs.extend (_: prev: { %s }))
.testers.runNixOSTest {
  name = "packages";
  nodes.machine = { };
  extraPythonPackages = python: [
    (python.toPythonModule (pkgs.writeTextDir "${python.python.sitePackages}/whose" (python.whose or "nixpkgs")))
  ];
  testScript = "";
}
"""


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("", "nixpkgs"),
        ('= throw "removed";', "nixpkgs"),
        ('= prev.python3.pkgs // { whose = "own"; };', "own"),
    ],
)
def test_packages_of_the_script_are_of_this_python_where_there_are_such(
    standin: Path, tmp_path: Path, own: str, expected: str
) -> None:
    name = f"python{sys.version_info.major}{sys.version_info.minor}Packages"
    path = tmp_path / "packages.nix"
    path.write_text(PACKAGES % (own and f"{name} {own}"))
    with Engine(EngineOptions(nixpkgs=str(standin))) as engine:
        (found,) = engine.nix_test(path).python_path
    assert Path(found, "whose").read_text() == expected


SEVERAL = """
let
  test = which: import ./make-test-python.nix ({ ... }: {
    name = which;
    nodes.machine.environment.etc.which.text = which;
    testScript = ''
      assert machine.succeed("cat /etc/which") == "${which}"
    '';
  });
in
{ one = test "one"; two = test "two"; }
"""


def test_a_file_with_several_tests(pytester: pytest.Pytester, standin: Path) -> None:
    (pytester.path / "several.nix").write_text(SEVERAL)
    arguments = ("-p", "no:cacheprovider", f"--nspawn-nixpkgs={standin}", "-v")
    named = pytester.runpytest_subprocess(*arguments, "several.nix::one", "several.nix::two")
    named.assert_outcomes(passed=2)
    named.stdout.fnmatch_lines(["several.nix::one PASSED*", "several.nix::two PASSED*"])
    unnamed = pytester.runpytest_subprocess(*arguments, "several.nix")
    unnamed.assert_outcomes(errors=1)
    unnamed.stdout.fnmatch_lines(
        ["*this file holds several tests (one, two): name one, as in FILE.nix::NAME*"]
    )
    wrong = pytester.runpytest_subprocess(*arguments, "several.nix::three")
    wrong.stdout.fnmatch_lines(["*this file has no test three; it has one, two*"])
