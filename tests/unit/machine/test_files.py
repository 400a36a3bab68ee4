from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nspawn.errors import NotRunningError, TimeoutExceeded
from pytest_nspawn.machine import Machine

from .fakes import LocalContainer, later


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A directory that stands for the node's."""
    path = tmp_path / "node"
    path.mkdir()
    return path


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory that stands for the machine's."""
    path = tmp_path / "host"
    path.mkdir()
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_read_and_write(machine: Machine, node: Path) -> None:
    assert machine.write_text(node / "text", "grüße\n") == 6
    assert machine.read_text(str(node / "text")) == "grüße\n"
    assert mode_of(node / "text") == 0o644
    assert machine.write_bytes(node / "text", b"\xff", mode=0o4750) == 1
    assert machine.read_bytes(node / "text") == b"\xff"
    assert machine.read_text(node / "text", errors="replace") == "�"
    assert mode_of(node / "text") == 0o4750


def test_reading_fails_as_open_does(machine: Machine, node: Path) -> None:
    os.mkfifo(node / "pipe")
    with pytest.raises(FileNotFoundError):
        machine.read_text(node / "missing")
    with pytest.raises(IsADirectoryError):
        machine.read_bytes(node)
    with pytest.raises(OSError):
        machine.read_bytes(node / "pipe")
    with pytest.raises(FileNotFoundError):
        machine.write_text(node / "missing" / "file", "")


def test_exists(machine: Machine, node: Path) -> None:
    (node / "dangling").symlink_to("missing")
    assert machine.exists(node)
    assert not machine.exists(node / "dangling")
    assert not machine.exists(node / "missing" / "deeper")


@pytest.mark.parametrize("name", ["there", "deep/er/there", "a b", "th*e", "$NAME"])
def test_wait_for_file(machine: Machine, node: Path, name: str) -> None:
    real = node / {"th*e": "there", "a b": "a b", "$NAME": "there"}.get(name, name)
    spelt = {"a b": "'a b'", "$NAME": "$(echo there)"}.get(name, name)

    def make() -> None:
        real.parent.mkdir(parents=True, exist_ok=True)
        real.touch()

    later(0.2, make)
    machine.wait_for_file(f"{node}/{spelt}", timeout=60)
    assert real.exists()
    machine.wait_for_file(f"{node}/{spelt}", timeout=0)


def test_wait_for_file_gives_up(machine: Machine, node: Path, container: LocalContainer) -> None:
    with pytest.raises(TimeoutExceeded, match="waiting for file"):
        machine.wait_for_file(str(node / "never"), timeout=0.2)
    later(0.2, container.kill)
    with pytest.raises(NotRunningError):
        machine.wait_for_file(str(node / "never"), timeout=60)


@pytest.fixture
def tree(host: Path) -> Path:
    top = host / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "program").write_text("#!/bin/sh\n")
    (top / "sub" / "program").chmod(0o750)
    (top / "sub").chmod(0o711)
    (top / "link").symlink_to("sub/program")
    (top / "empty").touch()
    return top


def test_copy_from_host(machine: Machine, host: Path, node: Path, tree: Path) -> None:
    machine.copy_from_host(tree / "sub" / "program", node / "new" / "name")
    assert mode_of(node / "new" / "name") == 0o750
    machine.copy_from_host(str(tree / "empty"), str(node / "new"))
    assert (node / "new" / "empty").read_text() == ""
    machine.copy_from_host(tree, node / "copy")
    assert (node / "copy" / "sub" / "program").read_text() == "#!/bin/sh\n"
    assert mode_of(node / "copy" / "sub") == 0o711
    # As with the NixOS driver, what a link of the machine leads to is copied: the node has no such path.
    assert (node / "copy" / "link").read_text() == "#!/bin/sh\n"
    assert not (node / "copy" / "link").is_symlink()
    machine.copy_from_host(tree, node / "copy")
    assert (node / "copy" / "tree" / "empty").exists()


def test_copy_from_host_refuses_what_it_cannot_copy(machine: Machine, host: Path, node: Path) -> None:
    os.mkfifo(host / "pipe")
    (host / "round").mkdir()
    (host / "round" / "again").symlink_to("..", target_is_directory=True)
    with pytest.raises(FileNotFoundError):
        machine.copy_from_host(host / "missing", node / "x")
    with pytest.raises(OSError, match="no regular file"):
        machine.copy_from_host(host / "pipe", node / "x")
    with pytest.raises(OSError, match=r"a link leads back|no regular file"):
        machine.copy_from_host(host / "round", node / "x")


def test_copy_from_host_via_shell(machine: Machine, node: Path, tree: Path) -> None:
    machine.copy_from_host_via_shell(str(tree / "sub" / "program"), str(node / "new" / "name"))
    assert (node / "new" / "name").read_text() == "#!/bin/sh\n"
    assert mode_of(node / "new" / "name") == 0o644


def test_copy_from_machine(machine: Machine, node: Path) -> None:
    (node / "sub").mkdir(mode=0o711)
    (node / "sub" / "program").write_bytes(b"\x00\xff")
    (node / "sub" / "program").chmod(0o4755)
    (node / "sub" / "link").symlink_to("/etc/passwd")
    (node / "sub" / "unsägliche\udcff").touch()
    os.mkfifo(node / "sub" / "pipe")
    machine.copy_from_machine(str(node / "sub"))
    copied = machine.out_dir / "sub"
    assert sorted(each.name for each in copied.iterdir()) == ["link", "program", "unsägliche\udcff"]
    assert (copied / "program").read_bytes() == b"\x00\xff"
    assert mode_of(copied / "program") == 0o755
    assert mode_of(copied) == 0o711
    assert os.readlink(copied / "link") == "/etc/passwd"
    machine.copy_from_vm(str(node / "sub" / "program"), "deep/er")
    assert (machine.out_dir / "deep" / "er" / "program").exists()
    with pytest.raises(FileNotFoundError):
        machine.copy_from_machine("/not/there")


def test_a_link_itself_is_copied_as_what_it_leads_to(machine: Machine, node: Path) -> None:
    (node / "file").write_text("x")
    (node / "link").symlink_to("file")
    machine.copy_from_machine(node / "link")
    assert not (machine.out_dir / "link").is_symlink()
    assert (machine.out_dir / "link").read_text() == "x"


def _link_to_directory(node: Path, elsewhere: Path) -> None:
    (node / "tree" / "d").symlink_to(elsewhere)


def _directory_with_file(node: Path, elsewhere: Path) -> None:
    (node / "tree" / "d").unlink()
    (node / "tree" / "d").mkdir()
    (node / "tree" / "d" / "precious").write_text("from the node")


@pytest.mark.parametrize("steps", [[_link_to_directory, _directory_with_file]])
def test_a_link_of_an_earlier_copy_is_replaced_not_followed(
    machine: Machine, node: Path, host: Path, steps: list[Callable[[Path, Path], None]]
) -> None:
    (host / "precious").write_text("mine")
    (node / "tree").mkdir()
    for step in steps:
        step(node, host)
        machine.copy_from_machine(node / "tree")
    assert (host / "precious").read_text() == "mine"
    assert (machine.out_dir / "tree" / "d" / "precious").read_text() == "from the node"


def test_a_target_directory_leads_over_no_link_of_a_node(machine: Machine, node: Path, host: Path) -> None:
    (node / "tree").mkdir()
    (node / "tree" / "d").symlink_to(host)
    (node / "file").write_text("from the node")
    machine.copy_from_machine(node / "tree")
    with pytest.raises(OSError):
        machine.copy_from_machine(node / "file", "tree/d")
    assert list(host.iterdir()) == []


def test_a_link_in_place_of_a_file_is_replaced(machine: Machine, node: Path, host: Path) -> None:
    (host / "precious").write_text("mine")
    machine.out_dir.mkdir()
    (machine.out_dir / "file").symlink_to(host / "precious")
    (node / "file").write_text("from the node")
    machine.copy_from_machine(node / "file")
    assert (host / "precious").read_text() == "mine"
    assert (machine.out_dir / "file").read_text() == "from the node"


def test_an_absolute_target_directory(machine: Machine, node: Path, host: Path) -> None:
    (node / "file").write_text("x")
    machine.copy_from_machine(node / "file", host / "else" / "where")
    assert (host / "else" / "where" / "file").read_text() == "x"


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../escaped"])
def test_a_name_that_no_file_can_have_is_refused(
    machine: Machine, node: Path, container: LocalContainer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(container.shell(), "listdir", lambda _path: [name])
    with pytest.raises(OSError, match="as no file can be named"):
        machine.copy_from_machine(node)
