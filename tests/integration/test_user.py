"""The same as an ordinary user: root runs a part of the suite as one that has subordinate ids and a control group."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nspawn import cgroups

UID, FIRST = 54321, 2_000_000
HERE = Path(__file__).parent

# Files of the machine are covered in a mount namespace of the test's own: it adds no account to them.
SCRIPT = """
set -e
for name in passwd subuid subgid; do mount --bind "$1/$name" "/etc/$name"; done
echo $$ > "$2/cgroup.procs"
shift 2
exec setpriv --reuid 54321 --regid 54321 --clear-groups "$@"
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group that belongs to the user, as the error of a user without one says how to make it."""
    home = cgroups.cgroup_home().path
    if home is None:
        pytest.skip("systemd gives control groups out here: run the suite as an ordinary user instead")
    path = home / f"user-of-test-{os.getpid()}"
    path.mkdir()
    for name in (".", "cgroup.procs", "cgroup.subtree_control"):
        os.chown(path / name, UID, UID)
    yield path
    path.rmdir()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter: pytest keeps its own for the one who runs it."""
    with tempfile.TemporaryDirectory(prefix="nspawn-user-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_an_ordinary_user_has_it_all(can_boot: None, group: Path, place: Path) -> None:
    if os.getuid():
        pytest.skip("the whole suite runs as an ordinary user already")
    missing = [program for program in ("setpriv", "unshare", "newuidmap") if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    closed = [path for path in [*HERE.parents, Path(sys.executable)] if not path.stat().st_mode & 0o005]
    if closed:
        pytest.skip(f"an ordinary user may not read {closed[0]}")
    home = place / "home"
    home.mkdir()
    os.chown(home, UID, UID)
    own = f"{pwd.getpwuid(0).pw_name}-tester"
    passwd = Path("/etc/passwd").read_text() + f"{own}:x:{UID}:{UID}::{home}:/bin/sh\n"
    (place / "passwd").write_text(passwd)
    for name in ("subuid", "subgid"):
        (place / name).write_text(f"{own}:{FIRST}:65536\n")
    tests = [
        "test_life.py",
        "test_networks.py",
        "test_parity_power.py",
        "test_images.py::test_every_option_works_on_every_image[host]",
    ]
    command = [
        *("unshare", "--mount", "bash", "-c", SCRIPT, "bash", str(place), str(group)),
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={home}/tests"),
        *(str(HERE / test) for test in tests),
        str(HERE.parent.parent / "example_tests/test_web.py"),
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    result = subprocess.run(
        command,
        env=environment | {"HOME": str(home)},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert "skipped" not in result.stdout
