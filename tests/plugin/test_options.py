"""Options and their twins in the ini file."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytest_nspawn import timing
from pytest_nspawn.plugin.options import Settings, read_settings

from .conftest import Project


def settings(project: Project, *args: str) -> Settings:
    return read_settings(project.pytester.parseconfigure(*args))


def ini(project: Project, text: str) -> None:
    project.pytester.makefile(".ini", pytest=f"[pytest]\n{text}\n")


def test_defaults(project: Project) -> None:
    assert settings(project) == Settings()


def test_the_command_line_wins_over_the_ini(project: Project) -> None:
    ini(
        project,
        "nspawn_image = /nix/store/x\nnspawn_sandbox = user\nnspawn_private_users = no\nnspawn_unavailable = skip\n"
        "nspawn_keep = always\nnspawn_boot_timeout = 30\nnspawn_timeout_factor = 2.5\nnspawn_full_boot = true",
    )
    asked = Settings(
        image="/nix/store/x",
        sandbox="user",
        private_users="no",
        skip_unavailable=True,
        keep="always",
        boot_timeout=30,
        timeout_factor=2.5,
        full_boot=True,
    )
    assert settings(project) == asked
    assert settings(
        project,
        *(
            "--nspawn-image=host",
            "--nspawn-sandbox=root",
            "--nspawn-private-users=yes",
            "--nspawn-unavailable=fail",
        ),
        *("--nspawn-keep=never", "--nspawn-boot-timeout=1", "--nspawn-timeout-factor=1", "--nspawn-shell"),
    ) == Settings(
        sandbox="root",
        private_users="yes",
        keep="never",
        boot_timeout=1,
        timeout_factor=1,
        shell=True,
        full_boot=True,
    )


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("sandbox", "rot", "'rot' is none of auto, root, user (did you mean 'root'?)"),
        ("private-users", "maybe", "'maybe' is none of auto, yes, no"),
        ("unavailable", "ignore", "'ignore' is none of fail, skip"),
        ("keep", "all", "'all' is none of never, failed, always"),
        ("boot-timeout", "soon", "'soon' is no number above 0, like 30 or 1.5"),
        ("boot-timeout", "0", "'0' is no number above 0*"),
        ("timeout-factor", "inf", "'inf' is no number above 0*"),
        ("timeout-factor", "-1", "'-1' is no number above 0*"),
        ("image", "rootfs:", "'rootfs:' names no directory or tar file*"),
        ("image", " ", "' ' names no image*"),
    ],
)
def test_a_bad_value_is_a_usage_error_that_says_where_it_stands(
    project: Project, option: str, value: str, message: str
) -> None:
    project.write("def test_it(): pass\n")
    result = project.run(f"--nspawn-{option}={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --nspawn-{option}: {message}"])
    if value.strip():
        name = f"nspawn_{option.replace('-', '_')}"
        ini(project, f"{name} = {value}")
        result = project.run()
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {name} in pytest.ini: {message}"])


def test_an_unknown_option_is_a_usage_error(project: Project) -> None:
    assert project.run("--nspawn-imaeg=host").ret == pytest.ExitCode.USAGE_ERROR


def test_paths_are_relative_to_where_they_are_written(project: Project) -> None:
    ini(project, "nspawn_image = rootfs:trees/debian")
    sub = project.pytester.mkdir("sub")
    project.pytester.chdir()
    assert settings(project).image == f"rootfs:{project.pytester.path}/trees/debian"
    os.chdir(sub)
    assert settings(project).image == f"rootfs:{project.pytester.path}/trees/debian"
    assert (
        settings(project, "--nspawn-image=rootfs:trees/debian.tar").image == f"rootfs:{sub}/trees/debian.tar"
    )


def test_the_header_shows_image_and_sandbox(project: Project) -> None:
    project.write("def test_it(): pass\n")
    project.run("--nspawn-image=/nix/store/x", "--nspawn-sandbox=user").stdout.fnmatch_lines(
        ["nspawn: image /nix/store/x, sandbox user"]
    )


def test_the_engine_is_told(project: Project) -> None:
    project.write("@pytest.mark.nodes(a=Node())\ndef test_it(a): pass\n").run(
        "--nspawn-image=rootfs:/srv/x", passed=1
    )
    assert project.everything[0] == "engine rootfs:/srv/x"


def test_the_timeout_factor_ends_with_the_run(project: Project) -> None:
    project.write(
        "from pytest_nspawn import timing\ndef test_it():\n    assert timing.default(10) == 30\n"
    ).run("--nspawn-timeout-factor=3", passed=1)
    assert timing.default(10) == 10


def test_help_names_the_options(project: Project) -> None:
    result = project.run("--help")
    result.stdout.fnmatch_lines(["*--nspawn-image=KIND*", "*--nspawn-full-boot*", "*nspawn_keep (string)*"])


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest_nspawn.plugin\n"
        "print(*{'pyroute2', 'jeepney', 'pexpect', 'ptyprocess', 'pytest_nspawn.cluster'} & {*sys.modules})"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        == "\n"
    )


def test_a_run_without_nodes_imports_nothing_heavy(project: Project) -> None:
    project.write(
        "import sys\n@pytest.mark.nodes(a=Node())\n@pytest.mark.skip\ndef test_a(a): pass\ndef test_it():\n"
        "    assert not {'pyroute2', 'jeepney', 'pexpect', 'pytest_nspawn.cluster'} & {*sys.modules}\n"
    )
    result = project.pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, skipped=1)
