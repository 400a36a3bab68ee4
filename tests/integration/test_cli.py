"""The commands for existing NixOS tests, on real nodes with the stand-in for nixpkgs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

HOME = Path(__file__).resolve().parents[2]
TESTS = HOME / "nixos_tests"

pytestmark = pytest.mark.usefixtures("can_boot")


def run(
    *arguments: str, cwd: Path, text: str = "", module: str = "pytest_nspawn"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of our tests, beside which files may be written."""
    shutil.copytree(TESTS, tmp_path / "tests")
    return tmp_path / "tests"


@pytest.mark.parametrize("command", ["doctor", "shell", "explain", "convert", "interact"])
def test_help(command: str, tmp_path: Path) -> None:
    said = run(command, "--help", cwd=tmp_path)
    assert said.returncode == 0
    assert f"python -m pytest_nspawn {command}" in said.stdout


def test_explain(standin: Path, project: Path) -> None:
    good = run("explain", "--nixpkgs", str(standin), "web.nix", cwd=project)
    assert (good.returncode, good.stdout) == (0, "web: runs as containers (machine)\n")
    bad = run("explain", "--nixpkgs", str(standin), "needs-vm.nix", cwd=project)
    assert bad.returncode == 1
    assert bad.stdout.splitlines()[0] == "needs-vm: needs a virtual machine:"
    for line in (
        "node machine: boot.kernelModules (a container runs on the machine's kernel)",
        "node machine: virtualisation.qemu.options (there is no QEMU)",
        "needs-vm.nix:14: screenshot() (a container has no screen)",
    ):
        assert f"  - {line}" in bad.stdout.splitlines()


def test_explain_many(standin: Path, project: Path) -> None:
    (project / "broken.nix").write_text("{ one = 1; }")
    said = run(
        "explain",
        "--nixpkgs",
        str(standin),
        "web.nix",
        "broken.nix",
        "needs-vm.nix",
        "users.nix",
        cwd=project,
    )
    assert said.returncode == 1
    assert said.stderr.startswith(
        f"error: the NixOS test {project}/broken.nix does not evaluate:\n  this is no NixOS test"
    )
    lines = said.stdout.splitlines()
    assert lines[0] == "web: runs as containers (machine)"
    assert lines[-2:] == [
        "users: runs as containers (machine)",
        "2 can run as containers, 1 need a virtual machine, 1 could not be read",
    ]


@pytest.mark.parametrize("command", ["explain", "convert", "interact"])
@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("absent.nix", "there is no such file: 'absent.nix'; name a .nix file"),
        (".#checks.x86_64-linux.foo", "there is no flake.nix in"),
        ("flake.nix", "a flake has many tests: 'flake.nix'; say flake.nix::checks.x86_64-linux.NAME"),
    ],
)
def test_a_test_that_is_not_there(command: str, argument: str, problem: str, tmp_path: Path) -> None:
    if argument == "flake.nix":
        (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }")
    said = run(command, argument, cwd=tmp_path)
    assert said.returncode == 1
    assert said.stderr.startswith(f"error: {problem}")
    assert len(said.stderr.splitlines()) == 1


def test_interact(standin: Path, project: Path) -> None:
    script = (
        "start_all(); test_script()\nprint('seen:', machine.succeed('hostname'))\n"
        "driver.machines\nretry(lambda last: True)\n1 / 0\nprint('still', machine.is_up())\n"
    )
    said = run("interact", "--nixpkgs", str(standin), "web.nix", cwd=project, text=script)
    assert said.returncode == 0, said.stderr
    assert "seen: machine" in said.stdout
    assert "[<Machine 'machine' (ready)>]" in said.stdout
    assert "ZeroDivisionError" in said.stderr
    assert "still True" in said.stdout
    assert "waiting for unit 'web.service'" in said.stderr


def test_interact_shows_where_a_script_failed_and_goes_on(standin: Path, project: Path) -> None:
    script = "test_script()\nprint('still', machine.is_up())\n"
    said = run("interact", "--nixpkgs", str(standin), "failing.nix", cwd=project, text=script)
    assert re.search(r'failing\.nix", line 15.*\n\s+assert answer == "forty-two"', said.stderr)
    assert "still True" in said.stdout


def prompt(standin: Path, project: Path) -> pexpect.spawn[str]:
    """Python's prompt of `interact`, on a terminal."""
    command = f"-m pytest_nspawn interact --nixpkgs {standin} web.nix"
    child = pexpect.spawn(
        sys.executable, command.split(), cwd=str(project), timeout=120, dimensions=(50, 200)
    )
    child.expect(">>> ")
    return child


def leave(child: pexpect.spawn[str]) -> None:
    child.expect(">>> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_interact_completes_names_and_gives_a_shell(standin: Path, project: Path) -> None:
    child = prompt(standin, project)
    child.send("machine.wait_for_open_unix_s\t")
    child.expect_exact("machine.wait_for_open_unix_socket(")
    child.sendcontrol("u")
    child.sendline("machine.shell_interact()")
    child.expect("[#$] ")
    child.sendline("echo in $((20 + 22)) the node; exit")
    child.expect("in 42 the node")
    leave(child)


def test_interact_gives_a_console(standin: Path, project: Path) -> None:
    child = prompt(standin, project)
    child.sendline("machine.wait_for_unit('multi-user.target'); machine.console_interact()")
    child.expect_exact("[console of machine; ^] three times leaves it]")
    # What it said before is shown. Not the last target's line: systemd says no more once a getty has waited for 5 s.
    child.expect_exact("Reached target")
    child.sendline("")
    child.expect("machine login: ")
    child.send("\x1d\x1d\x1d")
    child.expect(">>> ")
    child.sendline("print('up is', machine.is_up())")
    child.expect("up is True")
    leave(child)


def test_shell(tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable, ["-m", "pytest_nspawn", "shell"], cwd=str(tmp_path), timeout=60, dimensions=(50, 200)
    )
    child.expect("[#$] ")
    child.sendline("echo $((20 + 22)) $(hostname); exit")
    child.expect("42 machine")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_shell_on_a_configuration(standin: Path, tmp_path: Path) -> None:
    (tmp_path / "node.nix").write_text('{ environment.etc."said".text = "from the configuration"; }')
    arguments = ["-m", "pytest_nspawn", "shell", "--nixpkgs", str(standin), "--name", "box", "node.nix"]
    child = pexpect.spawn(sys.executable, arguments, cwd=str(tmp_path), timeout=120, dimensions=(50, 200))
    child.expect("[#$] ")
    child.sendline("cat /etc/said /etc/hostname; exit")
    child.expect("from the configurationbox")
    child.expect(pexpect.EOF)


def test_shell_needs_a_terminal(tmp_path: Path) -> None:
    said = run("shell", cwd=tmp_path)
    assert (said.returncode, said.stderr) == (
        1,
        "error: a shell needs a terminal; run this in one, without pipes\n",
    )


IMPORTED = ("relay", "called", "store")
"""Those whose nodes need other parts of their files."""


@pytest.mark.parametrize(
    "name",
    ["client-server", "relay", "globals", "names", "polling", "subtests", "called", "containers", "store"],
)
def test_convert_writes_a_file_that_does_the_same(standin: Path, project: Path, name: str) -> None:
    said = run("convert", "--nixpkgs", str(standin), f"{name}.nix", cwd=project)
    assert said.returncode == 0, said.stderr
    file = f"test_{name.replace('-', '_')}.py"
    assert said.stdout == f"wrote {file}\n"
    assert ("node_of_test" in (project / file).read_text()) == (name in IMPORTED)
    ran = run(
        "-q", "--nspawn-nixpkgs", str(standin), "-p", "no:cacheprovider", file, cwd=project, module="pytest"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


# Nodes that are more than their own text: of a let, of what the caller brings, of what is said of all nodes.
WHOLE = """
{ pkgs, ... }:
let
  greeting = "hello";
  own = pkgs.extend (_: _: { ours = "our own"; });
in
{
  called = own.testers.runNixOSTest {
    name = "called";
    defaults.environment.etc.all.text = "all";
    node.specialArgs.word = "special";
    nodes.one = { pkgs, word, nodes, ... }: {
      environment.etc.said.text = "${greeting} ${pkgs.ours} ${word} ${nodes.two.networking.hostName}";
    };
    containers.two = { };
    testScript = ''
      assert one.succeed("cat /etc/said") == "hello our own special two"
      assert two.succeed("cat /etc/all") == one.succeed("cat /etc/all") == "all"
    '';
  };
}
"""


def test_convert_keeps_what_nodes_get_from_elsewhere(standin: Path, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "whole.nix").write_text(WHOLE)
    said = run("convert", "--nixpkgs", str(standin), "whole.nix::called", cwd=tmp_path)
    assert said.stdout == "wrote test_called.py\n", said.stderr
    assert 'one=node_of_test(NIXOS_TEST, "one")' in (tmp_path / "test_called.py").read_text()
    ran = run("-q", "--nspawn-nixpkgs", str(standin), "test_called.py", cwd=tmp_path, module="pytest")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def test_convert_keeps_what_fails(standin: Path, project: Path) -> None:
    run("convert", "--nixpkgs", str(standin), "failing.nix", cwd=project)
    ran = run(
        "-q",
        "--nspawn-nixpkgs",
        str(standin),
        "-p",
        "no:cacheprovider",
        "test_failing.py",
        cwd=project,
        module="pytest",
    )
    assert "SUBFAILED[this one is not]" in ran.stdout
    assert "touch /run/reached" not in ran.stdout


def test_convert_does_not_write_over_a_file(standin: Path, project: Path) -> None:
    (project / "test_web.py").write_text("mine")
    said = run("convert", "--nixpkgs", str(standin), "web.nix", cwd=project)
    assert said.returncode == 1
    assert said.stderr.startswith("error: there is a file already:")
    assert (project / "test_web.py").read_text() == "mine"
    out = run("convert", "--nixpkgs", str(standin), "-o", "-", "web.nix", cwd=project)
    assert out.stdout.startswith('"""web: what web.nix tests, as a pytest file."""\n')
    compile(out.stdout, "test_web.py", "exec")
    assert run("convert", "--nixpkgs", str(standin), "--force", "web.nix", cwd=project).returncode == 0
