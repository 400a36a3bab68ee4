"""What Nix has to say is one clear error: the test, the node, Nix's own words, and the place in the user's file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("can_boot")


def run(pytester: pytest.Pytester, standin: Path | None, config: str, *arguments: str) -> pytest.RunResult:
    (pytester.path / "web.nix").write_text(config)
    pytester.makepyfile(
        test_it="import pytest\n"
        "from pytest_nspawn import Node\n"
        "@pytest.mark.nodes(web=Node('web.nix'), other=Node('{ }'))\n"
        "def test_it(web):\n"
        "    web.succeed('true')\n"
    )
    given = [f"--nspawn-nixpkgs={standin}"] if standin else []
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *given, *arguments)


@pytest.mark.parametrize(
    ("config", "lines"),
    [
        pytest.param(
            "{\n  environment.etc.x.text = undefinedName;\n}\n",
            [
                "*test_it.py::test_it: node 'web': its configuration does not evaluate:",
                "*undefined variable 'undefinedName'",
                "at */web.nix:2:28",
                "  environment.etc.x.text = undefinedName;",
            ],
            id="undefined",
        ),
        pytest.param(
            "{\n\n  networking.hostName = ;\n}\n",
            ["*node 'web'*", "*syntax error, unexpected ';'*", "at */web.nix:3:25"],
            id="syntax",
        ),
        pytest.param(
            "{\n  services.nothing.enable = true;\n}\n",
            ["*node 'web'*", "*The option `services.nothing*' does not exist*", "at */web.nix:2*"],
            id="no such option",
        ),
        pytest.param(
            "{\n  networking.firewall.enable = 3;\n}\n",
            ["*node 'web'*", "*`networking.firewall.enable'*is not of type `boolean'*", "at */web.nix:2*"],
            id="wrong type",
        ),
        pytest.param(
            '{ assertions = [ { assertion = false; message = "told you so"; } ]; }\n',
            ["*node 'web'*", "*- told you so"],
            id="assertion",
        ),
        pytest.param(
            '{ pkgs, ... }: { environment.etc.x.source = pkgs.runCommand "broken" { } "echo building; echo so >&2; exit 3"; }\n',
            [
                "*test_it: node 'web': its system does not build:",
                "*builder for '/nix/store/*-broken.drv' failed with exit code 3",
                "*the end of its log:",
                "*building",
                "*so",
                "see: nix log /nix/store/*-broken.drv",
            ],
            id="build",
        ),
    ],
)
def test_an_error_of_nix(pytester: pytest.Pytester, standin: Path, config: str, lines: list[str]) -> None:
    result = run(pytester, standin, config)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(lines)
    result.stdout.no_fnmatch_line("*show-trace*")
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*while evaluating*")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root builds as the users of a group")
def test_a_machine_without_users_to_build_as(
    pytester: pytest.Pytester, standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_CONFIG", "sandbox = false\nsubstituters =\nbuild-users-group = no-such-group\n")
    result = run(pytester, standin, f'{{ environment.etc.x.text = "{time.time_ns()}"; }}')
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*the group 'no-such-group' specified in 'build-users-group' does not exist",
            "root builds as users of that group: make it (*apt-get install nix-setup-systemd*",
        ]
    )
    result.stdout.no_fnmatch_line("*warning:*")
    # What does not evaluate is told as ever.
    result = run(pytester, standin, "{ environment.etc.x.text = undefinedName; }")
    result.stdout.fnmatch_lines(["*undefined variable 'undefinedName'"])


def test_no_nixpkgs_says_what_was_tried(
    pytester: pytest.Pytester, standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_PATH", "nixpkgs=/nowhere:/not/there")
    monkeypatch.setenv("HOME", str(pytester.path))
    result = run(pytester, None, "{ }")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*no nixpkgs to build NixOS configurations with; give one with --nspawn-nixpkgs; tried: *NIX_PATH: /nowhere*"
        ]
    )


def test_a_directory_that_is_no_nixpkgs(pytester: pytest.Pytester, standin: Path) -> None:
    result = run(pytester, None, "{ }", f"--nspawn-nixpkgs={pytester.path}")
    result.stdout.fnmatch_lines(["*--nspawn-nixpkgs: this directory is no nixpkgs*nixos/lib/eval-config.nix"])


def test_a_machine_without_nix(
    pytester: pytest.Pytester, standin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for program in ("systemd-nspawn", "python3"):
        found = next(Path(d, program) for d in os.environ["PATH"].split(":") if Path(d, program).exists())
        (tmp_path / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(pytester, standin, "{ }")
    result.stdout.fnmatch_lines(
        ["*needs Nix, and there is no nix-instantiate on PATH; mend it with: *nix-bin*"]
    )


def test_a_name_that_no_manifest_has(pytester: pytest.Pytester) -> None:
    manifest = pytester.path / "nodes.json"
    manifest.write_text(json.dumps({"db": "/nix/store/x"}))
    pytester.makepyfile(
        test_it="import pytest\n@pytest.mark.nodes(web='web')\ndef test_it(web):\n    pass\n"
        "@pytest.mark.nodes(db='db')\ndef test_db(db):\n    pass\n"
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", f"--nspawn-manifest={manifest}")
    result.stdout.fnmatch_lines(
        [
            "*node 'web': the manifest has no such entry: 'web'; */nodes.json has db",
            "*node 'db': there is no such store path*",
        ]
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(
        ["*node 'web': no such config: 'web'; a path ends in .nix*--nspawn-manifest*"]
    )


def test_nothing_is_built_where_nothing_runs(pytester: pytest.Pytester, standin: Path) -> None:
    for option in ("--collect-only", "--setup-plan"):
        result = run(pytester, standin, "{ this is no Nix", option)
        assert result.ret == 0


def test_an_interrupted_build_ends_nix(pytester: pytest.Pytester, standin: Path) -> None:
    # Builds run as a user of their own, who may not enter pytest's directories.
    home = Path(tempfile.mkdtemp(prefix="nspawn-test-"))
    home.chmod(0o777)
    marker = home / "building"
    config = (
        '{ pkgs, ... }: { environment.etc.x.source = pkgs.runCommand "slow" { now = "'
        + str(time.time_ns())
        + f'"; }} "echo $$ > {marker}; sleep 1000"; }}'
    )
    (pytester.path / "web.nix").write_text(config)
    pytester.makepyfile(
        test_it="import pytest\nfrom pytest_nspawn import Node\n"
        "@pytest.mark.nodes(web=Node('web.nix'))\ndef test_it(web):\n    pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--nspawn-nixpkgs={standin}"],
        cwd=pytester.path,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (marker.exists() and marker.read_text().strip()):
        assert process.poll() is None, process.communicate()[0]
        os.sched_yield()
    builder = int(marker.read_text())
    process.send_signal(2)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "KeyboardInterrupt" in output
    deadline = time.monotonic() + 10
    while Path(f"/proc/{builder}").exists() and time.monotonic() < deadline:
        os.sched_yield()
    assert not Path(f"/proc/{builder}").exists()
    shutil.rmtree(home)
