"""Every kind of image, and every option of a node on each."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pytest_nspawn import Bind, HostError, Machine
from pytest_nspawn.cluster import Engine, EngineOptions
from pytest_nspawn.model import Node, Topology

UNIT = "[Service]\nType=oneshot\nRemainAfterExit=yes\nLoadCredential=token\nExecStart=/bin/sh -c 'cat $CREDENTIALS_DIRECTORY/token > /from-unit'\n[Install]\nWantedBy=multi-user.target\n"
NETWORK = "[Match]\nName=eth1\n[Network]\nAddress=10.99.0.7/24\nDHCP=no\nLinkLocalAddressing=no\n"


def tree_state(path: Path) -> set[tuple[str, int, int]]:
    """Names, sizes and times of a tree: what a write to it would change."""
    entries = [
        os.path.join(directory, name)
        for directory, directories, files in os.walk(path)
        for name in [*directories, *files]
    ]
    states = [(entry, os.lstat(entry)) for entry in entries]
    return {(entry, state.st_size, state.st_mtime_ns) for entry, state in states}


@pytest.fixture(params=["host", "rootfs", "tar"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "host":
        return "host"
    rootfs: Path = request.getfixturevalue("rootfs")
    if request.param == "rootfs":
        if os.getuid() and rootfs.stat().st_uid != os.getuid():
            pytest.skip(f"{rootfs} belongs to another user: as an ordinary user an archive does it")
        return f"rootfs:{rootfs}"
    archive = tmp_path_factory.getbasetemp() / "rootfs.tar"
    if not archive.exists():
        subprocess.run(
            ["tar", "--create", "--ignore-failed-read", "--file", archive, "--directory", rootfs, "."],
            check=True,
        )
    return f"rootfs:{archive}"


def test_every_option_works_on_every_image(
    engine: Engine, image: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/file").write_text("from the machine")
    before = tree_state(Path(image.partition(":")[2])) if image.startswith("rootfs:") else set()
    limits: dict[str, Any] = {"memory": "512M", "tasks": 300, "cpus": 1.5}
    try:
        engine.check(Topology({"web": Node(**limits)}))
    except HostError:
        limits = {}  # an ordinary user on a hybrid machine: nobody may limit anything
    node = Node(
        image=image,
        files={"/srv/text": "words\n", "/srv/script": ("#!/bin/sh\necho ran\n", 0o755), "/etc/a/b/c": b"\0"},
        units={"given.service": UNIT},
        binds={"/mnt/shared": Bind(tmp_path / "shared", read_only=True), "/run/late": tmp_path / "shared"},
        credentials={"token": "secret words"},
        network_units={"10-own.network": NETWORK},
        root_size="300M",
        **limits,
    )
    with engine.boot(Topology({"web": node})) as nodes:
        web = nodes["web"]
        assert web.succeed("cat /srv/text; /srv/script; hostname") == "words\nran\nweb\n"
        assert web.read_bytes("/etc/a/b/c") == b"\0"
        web.wait_for_unit("given.service", timeout=30)
        assert web.read_text("/from-unit") == "secret words"
        assert web.succeed("cat /mnt/shared/file /run/late/file") == "from the machine" * 2
        web.fail("touch /mnt/shared/new")
        assert "10.99.0.7/24" in web.succeed("ip -4 addr show eth1 || networkctl status eth1")
        web.fail("head -c 400M /dev/zero > /large")
        web.succeed("rm -f /large; touch /usr-is-not-mine || :")
        if limits:
            crowd = web.run("for i in $(seq 400); do sleep 5 & done", timeout=60)
            assert "temporarily unavailable" in crowd.stderr
        assert web.get_unit_property("multi-user.target", "ActiveState") == "active"
    if before:
        assert tree_state(Path(image.partition(":")[2])) == before
    assert (tmp_path / "shared/file").read_text() == "from the machine"


@pytest.mark.parametrize("private_users", [True, False])
def test_user_namespaces_of_nodes(engine: Engine, private_users: bool) -> None:
    if engine.sandbox.mode == "user" and private_users:
        pytest.skip("private_users=True needs root: the kernel maps no images for an ordinary user")
    with engine.boot(Topology({"web": Node(private_users=private_users)})) as nodes:
        web = nodes["web"]
        outside = int(web.read_text("/proc/self/uid_map").split()[1]) if private_users else 0
        assert (outside > 0) == private_users
        assert (
            web.succeed("stat -c %U /usr/bin/su; touch /root/mine; stat -c %U /root/mine").split()[1]
            == "root"
        )
        web.fail(
            "mount -o remount,rw,bind /usr && touch /usr/written",
            "mount -o remount,rw /usr && touch /usr/written",
        )
        if engine.sandbox.mode == "root":
            assert web.succeed("stat -c %U%a /usr/bin/su") == "root4755\n"
            assert web.succeed("su daemon --shell /bin/sh --command 'id -un'") == "daemon\n"


def test_an_idmapped_bind_belongs_to_the_nodes_users(engine: Engine, tmp_path: Path) -> None:
    if engine.sandbox.mode == "user":
        pytest.skip("idmap=True needs root: the kernel maps no binds for an ordinary user")
    tmp_path.chmod(0o755)
    (tmp_path / "own").write_text("")
    node = Node(private_users=True, binds={"/data": Bind(tmp_path, idmap=True), "/raw": Bind(tmp_path)})
    with engine.boot(Topology({"web": node})) as nodes:
        assert nodes["web"].succeed("stat -c %U /data/own /raw/own; echo in > /data/new") == "root\nnobody\n"
    assert (tmp_path / "new").stat().st_uid == os.getuid()


def test_a_host_node_starts_only_the_basics(engine: Engine) -> None:
    with engine.boot(Topology({"plain": None})) as nodes:
        plain: Machine = nodes["plain"]
        listing = plain.succeed("systemctl list-units --type=service --state=running --plain --no-legend")
        running = {line.split()[0] for line in listing.splitlines()}
        basics = ("systemd-", "dbus", "console-getty", "getty", "user@", "container-getty")
        assert all(unit.startswith(basics) for unit in running), running
        assert plain.succeed("cat /etc/shadow").startswith("root::")
        assert plain.succeed("ls /home /srv /root") == "/home:\n\n/root:\n\n/srv:\n"


def test_a_full_boot_leaves_nothing_out(can_boot: None) -> None:
    def masked(full: bool) -> str:
        with (
            Engine(EngineOptions(full_boot=full)) as engine,
            engine.boot(Topology({"plain": None})) as nodes,
        ):
            return nodes["plain"].get_unit_property("systemd-tmpfiles-setup-dev.service", "LoadState")

    assert masked(full=False) == "masked"
    assert masked(full=True) == "loaded"


STORE = """
    import os, sys
    from pathlib import Path
    from pytest_nspawn import Bind, Node, boot

    system = Path("/nix/store/0123-nixos-system")
    (system / "etc").mkdir(parents=True)
    (system / "etc/hosts").symlink_to("/nix/store/0123-hosts")
    Path("/nix/store/0123-hosts").write_text("192.0.2.1 of-the-system\\n")
    init = system / "init"
    init.write_text('''#!/usr/bin/bash
    export PATH=/usr/bin:/usr/sbin
    ln -sfn usr/bin /bin; ln -sfn usr/sbin /sbin
    mkdir -p /etc /var/log /root; ln -sfn /nix/store/0123-hosts /etc/hosts
    printf 'root:x:0:0::/root:/bin/sh\\\\n' > /etc/passwd; printf 'root:x:0:\\\\n' > /etc/group
    mkdir -p /etc/systemd/system
    for unit in systemd-logind.service dbus.service dbus.socket; do ln -sfn /dev/null /etc/systemd/system/$unit; done
    exec /usr/lib/systemd/systemd
    ''')
    init.chmod(0o755)
    unit = "[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/sh -c 'echo ran > /root/ran'\\n[Install]\\nWantedBy=multi-user.target\\n"
    binds = {path: Bind(path, read_only=True) for path in ("/usr", "/lib", "/lib64")}
    system_node = Node(str(system), binds=binds, files={"/srv/x": "text"}, units={"given.service": unit})
    with boot(system=system_node, other=None) as nodes:
        node = nodes["system"]
        node.wait_for_unit("given.service", timeout=30)
        assert node.succeed("cat /root/ran /srv/x") == "ran\\ntext"
        hosts = node.read_text("/etc/hosts")
        assert "of-the-system" in hosts and "192.168.1.1 other" in hosts, hosts
        node.fail("touch /nix/store/new")
        node.crash()
        node.start()
        assert node.succeed("cat /root/ran") == "ran\\n"
    print("booted from the store")
"""


def test_a_systems_store_path_boots(can_boot: None, tmp_path: Path) -> None:
    """The store is a file system of the test's own, in a mount namespace of its own."""
    if os.getuid() or not Path("/nix").is_dir():
        try:
            Path("/nix").mkdir()
        except OSError as error:
            pytest.skip(f"there is no /nix and this user cannot make it: {error}")
        made = True
    else:
        made = False
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(STORE))
    command = 'mount -t tmpfs tmpfs /nix && mkdir /nix/store && exec "$@"'
    try:
        result = subprocess.run(
            ["unshare", "--mount", "sh", "-c", command, "sh", sys.executable, str(script)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        if made:
            Path("/nix").rmdir()
    assert result.stdout == "booted from the store\n", result.stderr
