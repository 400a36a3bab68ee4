from __future__ import annotations

import time
from pathlib import Path

import pytest

from pytest_nspawn.nixbuild.reads import parse, signatures, unchanged


def encoded(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def call(name: str, arguments: str, result: str = "0") -> str:
    return f"123 {name}({arguments}) = {result}\n"


def opened(path: Path | str, result: str = "3") -> str:
    return call("openat", f'AT_FDCWD<{encoded("/home")}>, "{encoded(str(path))}", O_RDONLY', result)


MISSING = "-1 ENOENT (No such file or directory)"


def test_paths_are_those_that_nix_named() -> None:
    touched = parse(
        iter(
            [
                opened("/a/b"),
                opened("relative"),
                opened("/missing", MISSING),
                call("newfstatat", f'4<{encoded("/dir")}>, "{encoded("x")}", {{...}}, 0'),
                call("newfstatat", f'4<{encoded("/dir")}>, "", {{...}}, AT_EMPTY_PATH'),
                call("getdents64", f"5<{encoded('/listed')}>, 0x1 /* 3 entries */, 32768", "80"),
                "123 <... openat resumed>) = 3\n",
                "124 +++ exited with 0 +++\n",
            ]
        )
    )
    assert touched.paths == {"/a/b", "/home/relative", "/missing", "/dir/x"}
    assert touched.found == {"/a/b", "/home/relative", "/dir/x"}
    assert touched.listed == {"/listed"}
    assert not touched.network


@pytest.mark.parametrize(("family", "network"), [("AF_INET", True), ("AF_INET6", True), ("AF_UNIX", False)])
def test_the_network_is_seen(family: str, network: bool) -> None:
    touched = parse(iter([call("connect", f"4<{encoded('socket:[1]')}>, {{sa_family={family}, x}}, 16")]))
    assert touched.network == network
    assert (signatures(touched, since=0, trusted="/none", own="/none") is None) == network


def old(path: Path) -> int:
    """A moment after the file was written, as far as the kernel's clock can tell."""
    return path.lstat().st_ctime_ns + 10**9


def test_a_file_that_changed_meanwhile_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    touched = parse(iter([opened(path)]))
    assert signatures(touched, since=time.time_ns() - 10**10, trusted="/none", own="/none") is None
    assert signatures(touched, since=old(path), trusted="/none", own="/none") == {
        str(path): signatures(touched, since=old(path), trusted="/none", own="/none")[str(path)]  # type: ignore[index]
    }


def test_a_file_that_went_meanwhile_is_not_remembered(tmp_path: Path) -> None:
    touched = parse(iter([opened(tmp_path / "gone")]))
    assert signatures(touched, since=time.time_ns(), trusted="/none", own="/none") is None


def test_what_asks_for_the_time_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "x.nix"
    path.write_text("builtins.currentTime")
    touched = parse(iter([opened(path)]))
    assert signatures(touched, since=old(path), trusted="/none", own="/none") is None
    assert signatures(touched, since=old(path), trusted=str(tmp_path), own="/none") is not None
    assert signatures(touched, since=old(path), trusted="/none", own=str(tmp_path)) is None


def test_the_books_of_nix_and_of_the_kernel_do_not_count() -> None:
    paths = ["/nix/var/nix/db/db.sqlite", "/proc/self/maps", "/dev/null", "/root/.cache/nix/x", "/nix/store"]
    touched = parse(iter([opened(path) for path in paths]))
    assert signatures(touched, since=0, trusted="/none", own="/none") == {}


def test_a_profile_in_the_books_counts(tmp_path: Path) -> None:
    touched = parse(iter([opened("/nix/var/nix/profiles/missing", MISSING)]))
    assert signatures(touched, since=0, trusted="/none", own="/none") == {
        "/nix/var/nix/profiles/missing": "-"
    }


def test_a_directory_counts_by_its_names_only_where_they_were_read(tmp_path: Path) -> None:
    seen = signatures(parse(iter([opened(tmp_path)])), since=0, trusted="/none", own="/none")
    listing = [opened(tmp_path), call("getdents64", f"5<{encoded(str(tmp_path))}>, 0x1", "9")]
    listed = signatures(parse(iter(listing)), since=0, trusted="/none", own="/none")
    assert seen is not None
    assert listed is not None
    assert unchanged(seen)
    assert unchanged(listed)
    (tmp_path / "new").touch()
    assert unchanged(seen)
    assert not unchanged(listed)
