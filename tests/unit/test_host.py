from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pytest_nspawn import __main__ as command_line
from pytest_nspawn import host
from pytest_nspawn.cgroups import Tree
from pytest_nspawn.errors import ConfigError, HostError

# The uid that owns the files of a fake tree, and one that does not: tests run as root and as anybody.
ME = os.geteuid() or 4242
ROOT = 0

_PURE = "30 23 0:26 / /sys/fs/cgroup {options} shared:4 - cgroup2 cgroup2 {super}"
_HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids ro,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


class Fake:
    """A machine below a directory."""

    def __init__(self, root: Path, mountinfo: str, own: str = "0::/\n") -> None:
        self.root = root
        self.attributes: dict[tuple[str, str], bytes] = {}
        self.write("/proc/self/mountinfo", mountinfo)
        self.write("/proc/self/cgroup", own)

    def write(self, path: str, text: str = "") -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def group(
        self, path: str, *, controllers: str = "", enabled: str = "", procs: str = "", kind: str = "domain"
    ) -> None:
        for name, text in {
            "cgroup.controllers": controllers,
            "cgroup.subtree_control": enabled,
            "cgroup.procs": procs,
            "cgroup.type": kind,
        }.items():
            if text or name != "cgroup.type":
                self.write(f"{path}/{name}", text)
        for file in (self.root / path.lstrip("/"), *(self.root / path.lstrip("/")).iterdir()):
            os.chown(file, ME, -1)

    def systemd(self, *managers: str) -> None:
        (self.root / "run/systemd/system").mkdir(parents=True)
        for manager in managers:
            self.write(f"{manager}/systemd/private")

    def tree(self, uid: int) -> Tree:
        return Tree(root=self.root, uid=uid, getxattr=self._getxattr)

    def _getxattr(self, path: Path, name: str) -> bytes:
        try:
            return self.attributes["/" + str(path.relative_to(self.root)), name]
        except KeyError:
            raise OSError(errno.ENODATA, "No data available") from None


@pytest.fixture
def pure(tmp_path: Path) -> Callable[..., Fake]:
    def make(own: str = "/", options: str = "rw", super_options: str = "rw") -> Fake:
        return Fake(tmp_path, _PURE.format(options=options, super=super_options), f"0::{own}\n")

    return make


@pytest.fixture
def hybrid(tmp_path: Path) -> Fake:
    return Fake(tmp_path, _HYBRID)


def _paths(home: host.CgroupHome, fake: Fake) -> tuple[str | None, dict[str, str]]:
    def outside(path: Path) -> str:
        return "/" + str(path.relative_to(fake.root))

    path = outside(home.path) if home.path else None
    return path, {name: outside(path) for name, path in home.v1.items()}


def test_root_on_pure_v2_uses_the_root_of_the_hierarchy(pure: Callable[..., Fake]) -> None:
    machine = pure("/build")
    machine.group("/sys/fs/cgroup", controllers="cpu memory pids", procs="1\n", kind="")
    home = host.cgroup_home(machine.tree(ROOT))
    assert _paths(home, machine) == ("/sys/fs/cgroup", {})
    assert home.scope_prefix == ()
    assert home.controllers == {"cpu", "memory", "pids"}


def test_a_group_with_processes_gives_out_only_what_it_gives_out_already(pure: Callable[..., Fake]) -> None:
    machine = pure()
    machine.group("/sys/fs/cgroup", controllers="cpu memory pids", enabled="pids", procs="1\n")
    assert host.cgroup_home(machine.tree(ROOT)).controllers == {"pids"}


def test_root_on_a_hybrid_machine_limits_by_v1_what_v2_lacks(hybrid: Fake) -> None:
    hybrid.group("/sys/fs/cgroup/unified", controllers="hugetlb pids", kind="")
    home = host.cgroup_home(hybrid.tree(ROOT))
    v1 = {"memory": "/sys/fs/cgroup/memory", "cpu": "/sys/fs/cgroup/cpu,cpuacct"}
    assert _paths(home, hybrid) == ("/sys/fs/cgroup/unified", v1)
    assert home.controllers == {"hugetlb", "pids"}


def test_read_only_v1_hierarchies_are_no_use(hybrid: Fake) -> None:
    hybrid.group("/sys/fs/cgroup/unified")
    assert "pids" not in host.cgroup_home(hybrid.tree(ROOT)).v1


def test_a_user_on_a_hybrid_machine_has_no_limits(hybrid: Fake) -> None:
    hybrid.group("/sys/fs/cgroup/unified")
    hybrid.write("/proc/self/cgroup", "4:memory:/\n0::/mine\n")
    hybrid.group("/sys/fs/cgroup/unified/mine", procs="77\n")
    home = host.cgroup_home(hybrid.tree(ME))
    assert _paths(home, hybrid) == ("/sys/fs/cgroup/unified/mine", {})
    assert home.controllers == frozenset()


def test_a_user_whose_group_is_not_its_own_is_told_how_to_get_one(pure: Callable[..., Fake]) -> None:
    machine = pure("/system")
    machine.group("/sys/fs/cgroup/system")
    stranger = ME + 1
    with pytest.raises(HostError) as caught:
        host.cgroup_home(machine.tree(stranger))
    assert "/sys/fs/cgroup/system, does not belong to user" in caught.value.problem
    assert caught.value.mend is not None
    assert f"G=/sys/fs/cgroup/pytest-nspawn-{stranger}; sudo mkdir" in caught.value.mend
    assert "echo $$ | sudo tee $G/cgroup.procs" in caught.value.mend


@pytest.mark.parametrize("options", [("ro", "rw"), ("rw", "ro,nsdelegate")])
def test_a_read_only_hierarchy_is_an_error_that_mends(
    pure: Callable[..., Fake], options: tuple[str, str]
) -> None:
    machine = pure("/", *options)
    machine.group("/sys/fs/cgroup")
    with pytest.raises(HostError) as caught:
        host.cgroup_home(machine.tree(ROOT))
    assert "read-only" in caught.value.problem
    assert caught.value.mend == "mount -o remount,rw /sys/fs/cgroup"


def test_without_a_v2_hierarchy_the_mend_mounts_one(tmp_path: Path) -> None:
    only_v1 = "".join(line for line in _HYBRID.splitlines(keepends=True) if "cgroup2" not in line)
    unified = "/sys/fs/cgroup/unified"
    for mountinfo, mend in [
        (only_v1, f"sudo mkdir -p {unified} && sudo mount -t cgroup2 cgroup2 {unified}"),
        ("", "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
    ]:
        with pytest.raises(HostError) as caught:
            host.cgroup_home(Fake(tmp_path, mountinfo).tree(ME))
        assert caught.value.mend == mend


def test_under_systemd_root_asks_for_a_delegated_scope(pure: Callable[..., Fake]) -> None:
    machine = pure("/system.slice/ssh.service")
    machine.systemd("/run")
    machine.group("/sys/fs/cgroup", controllers="cpu memory pids", kind="")
    machine.group("/sys/fs/cgroup/system.slice/ssh.service")
    home = host.cgroup_home(machine.tree(ROOT))
    assert home.path is None
    assert home.scope_prefix == (
        "systemd-run",
        "--scope",
        "--quiet",
        "--collect",
        "--property=Delegate=yes",
    )
    assert home.controllers == {"cpu", "memory", "pids"}


def test_under_systemd_a_user_asks_its_own_manager(pure: Callable[..., Fake]) -> None:
    machine = pure("/user.slice/session-2.scope")
    machine.systemd("/run", f"/run/user/{ME}")
    machine.group(f"/sys/fs/cgroup/user.slice/user-{ME}.slice/user@{ME}.service", controllers="memory pids")
    home = host.cgroup_home(machine.tree(ME))
    assert home.path is None
    assert home.scope_prefix[:4] == ("env", f"XDG_RUNTIME_DIR=/run/user/{ME}", "systemd-run", "--user")
    assert home.controllers == {"memory", "pids"}
    assert not home.v1


def test_a_user_without_a_manager_is_told_to_linger(pure: Callable[..., Fake]) -> None:
    machine = pure("/system.slice/cron.service")
    machine.systemd("/run")
    with pytest.raises(HostError) as caught:
        host.cgroup_home(machine.tree(ME))
    assert (caught.value.mend or "").startswith(f"sudo loginctl enable-linger {ME}")


@pytest.mark.parametrize("attribute", ["user.delegate", "trusted.delegate"])
def test_a_delegated_group_is_used_as_it_is(pure: Callable[..., Fake], attribute: str) -> None:
    machine = pure("/user.slice/run-1.scope")
    machine.systemd("/run")
    path = "/sys/fs/cgroup/user.slice/run-1.scope"
    machine.group(path, controllers="pids")
    machine.attributes[path, attribute] = b"1"
    for uid in (ROOT, ME):
        home = host.cgroup_home(machine.tree(uid))
        assert _paths(home, machine)[0] == path
        assert home.scope_prefix == ()


def test_a_process_outside_the_mounted_part_is_placed_at_the_mount(tmp_path: Path) -> None:
    # A container that shares the machine's cgroup namespace: its mount shows a part of the hierarchy.
    part = "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    machine = Fake(tmp_path, part, "0::/docker/abc/inner\n")
    assert host.own_cgroup("self", machine.tree(ME)) == tmp_path / "sys/fs/cgroup/inner"
    machine.write("/proc/7/cgroup", "0::/../other\n")
    assert host.own_cgroup(7, machine.tree(ME)) == tmp_path / "sys/fs/cgroup"


def test_mount_points_with_blanks_are_unescaped(tmp_path: Path) -> None:
    machine = Fake(tmp_path, r"30 23 0:26 / /my\040groups rw - cgroup2 cgroup2 rw")
    assert host.own_cgroup("self", machine.tree(ROOT)) == tmp_path / "my groups"


# --- modes and checks ----------------------------------------------------------------------------------------

_WORKING = "namespaces:\ntmpfs:\noverlay:\ncgroup2:\ndevpts:\nveth:\nbridge:\n"


def _machine(
    fake: Fake,
    *,
    uid: int = ROOT,
    probe: str = _WORKING,
    lacks: Sequence[str] = (),
    nspawn: str = "systemd 252 (252.39-1~deb12u2)\n+PAM",
    release: str = "6.18.0-test",
    capabilities: str = "000001ffffffffff",
) -> host.Host:
    fake.write("/proc/self/status", f"Name:\tpytest\nCapEff:\t{capabilities}\n")
    fake.write(
        "/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t5\t1\npids\t0\t5\t1\n"
    )
    for file in ("/usr/lib/systemd/systemd", "/usr/lib/systemd/system/dbus.service"):
        if file not in lacks:
            fake.write(file)

    def run(command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "systemd-nspawn":
            return 0, nspawn
        if command[0] == "unshare":
            return 0, probe
        if command[0] == "nix":
            return 0, "build-hook = \nbuild-users-group = nixbld\n"
        if command[0] == "getent":
            return (0, "nixbld:x:997:nixbld1\n") if command[-1] not in lacks else (2, "")
        return 0, ""

    return host.Host(
        tree=fake.tree(uid),
        which=lambda name: None if name in lacks else f"/usr/bin/{name}",
        run=run,
        user_name=lambda uid: "root" if uid == ROOT else "ada",
        release=release,
    )


def _failing(found: Sequence[host.Check]) -> dict[str, tuple[str, str | None]]:
    return {check.name: (check.problem, check.mend) for check in found if not check.ok}


@pytest.fixture
def fake(hybrid: Fake) -> Fake:
    hybrid.group("/sys/fs/cgroup/unified", kind="")
    return hybrid


def test_a_machine_that_has_everything(fake: Fake) -> None:
    found = host.checks("root", _machine(fake))
    assert _failing(found) == {
        "limit `tasks`": ("the pids controller is not handed to this process's control group", None)
    }
    assert {"systemd-nspawn", "control groups", "veth", "idmapped mounts"} <= {check.name for check in found}


def test_missing_programs_name_the_package(fake: Fake) -> None:
    machine = _machine(fake, uid=ME, lacks=["systemd-nspawn", "newuidmap", "ip"])
    failing = _failing(host.checks("user", machine))
    assert failing["systemd-nspawn"] == ("not installed", "sudo apt-get install systemd-container")
    assert failing["uidmap"] == ("newuidmap not installed", "sudo apt-get install uidmap")
    assert failing["ip"] == ("not installed", "sudo apt-get install iproute2")


@pytest.mark.parametrize(
    ("lacks", "mend"),
    [
        (["apt-get"], "dnf install systemd-container"),
        (["apt-get", "dnf"], "pacman -S systemd"),
        (["apt-get", "dnf", "pacman", "zypper"], "nix develop"),
        (["apt-get", "dnf", "pacman", "zypper", "nix"], None),
    ],
)
def test_the_mend_uses_the_package_manager_that_is_there(
    fake: Fake, lacks: list[str], mend: str | None
) -> None:
    machine = _machine(fake, lacks=["systemd-nspawn", *lacks])
    assert _failing(host.checks("root", machine))["systemd-nspawn"] == ("not installed", mend)


def test_what_is_too_old_says_what_is_needed(fake: Fake) -> None:
    failing = _failing(
        host.checks("root", _machine(fake, nspawn="systemd 241 (241)\n", release="5.10.0-28-amd64"))
    )
    assert "nodes need systemd 249 or newer" in failing["systemd-nspawn"][0]
    assert "nodes need 5.14 or newer" in failing["kernel"][0]


def test_kernel_features_are_what_the_probe_found(fake: Fake) -> None:
    probe = _WORKING.replace("overlay:", "overlay:mount: unknown filesystem type 'overlay'.").replace(
        "veth:\n", ""
    )
    failing = _failing(host.checks("root", _machine(fake, probe=probe)))
    assert failing["overlay"] == ("mount: unknown filesystem type 'overlay'.", "modprobe overlay")
    assert failing["veth"] == ("the probe did not get that far", "modprobe veth")


def test_forbidden_user_namespaces_name_the_switch(fake: Fake) -> None:
    fake.write("/proc/sys/kernel/unprivileged_userns_clone", "0\n")
    fake.write("/proc/sys/user/max_user_namespaces", "96365\n")
    machine = _machine(fake, uid=ME, probe="unshare: unshare failed: Operation not permitted\n")
    problem, mend = _failing(host.checks("user", machine))["namespaces"]
    assert problem == "unshare: unshare failed: Operation not permitted"
    assert mend == "sudo sysctl kernel.unprivileged_userns_clone=1"


def test_subordinate_ids_begin_after_the_last_that_somebody_has(fake: Fake) -> None:
    fake.write("/etc/subuid", "bob:100000:65536\nada:300000:10\n")
    fake.write("/etc/subgid", "bob:100000:65536\nada:165536:65536\n")
    problem, mend = _failing(host.checks("user", _machine(fake, uid=ME)))["subordinate ids"]
    assert problem == "user ada has no range of 65536 ids in /etc/subuid"
    assert mend == "sudo usermod --add-subuids 300010-365545 ada"


def test_ranges_can_be_listed_by_number(fake: Fake) -> None:
    for file in ("/etc/subuid", "/etc/subgid"):
        fake.write(file, f"{ME}:100000:65536\n")
    assert "subordinate ids" not in _failing(host.checks("user", _machine(fake, uid=ME)))


def test_a_machine_without_systemd_loses_only_the_host_image(fake: Fake) -> None:
    machine = _machine(fake, lacks=["/usr/lib/systemd/systemd", "/usr/lib/systemd/system/dbus.service"])
    [check] = [check for check in host.checks("root", machine) if check.name == "image `host`"]
    assert not check.ok
    assert not check.required
    assert check.mend == "apt-get install systemd dbus"


def test_a_machine_without_nix_loses_only_nixos_configurations(fake: Fake) -> None:
    failing = _failing(host.checks("root", _machine(fake, lacks=["nix-instantiate", "strace"])))
    assert failing["image `nixos`"][1] == "apt-get install nix-bin"
    assert "strace" not in failing
    failing = _failing(host.checks("root", _machine(fake, lacks=["strace"])))
    assert failing["strace"] == (
        "not installed: every run evaluates NixOS configurations anew",
        "apt-get install strace",
    )


def test_builds_of_root_need_their_group(fake: Fake) -> None:
    failing = _failing(host.checks("root", _machine(fake, lacks=["nixbld"])))
    assert failing["builds of Nix"] == (
        "as root it builds as users of the group nixbld, which does not exist",
        "apt-get install nix-setup-systemd",
    )
    failing = _failing(host.checks("root", _machine(fake, lacks=["nixbld", "apt-get"])))
    assert failing["builds of Nix"][1] == "echo 'build-users-group =' >> /etc/nix/nix.conf"
    assert "builds of Nix" not in _failing(host.checks("user", _machine(fake, uid=ME, lacks=["nixbld"])))


@pytest.mark.parametrize(
    ("option", "uid", "mode"),
    [("auto", ROOT, "root"), ("auto", ME, "user"), ("root", ROOT, "root"), ("user", ROOT, "user")],
)
def test_the_mode_follows_the_option_and_the_user(fake: Fake, option: str, uid: int, mode: str) -> None:
    assert host.resolve_mode(option, _machine(fake, uid=uid)) == mode


def test_root_without_its_capability_is_no_root(fake: Fake) -> None:
    machine = _machine(fake, capabilities="00000000a80425fb")
    assert host.resolve_mode("auto", machine) == "user"
    with pytest.raises(HostError, match="CAP_SYS_ADMIN"):
        host.resolve_mode("root", machine)
    assert [check.name for check in host.checks("root", machine)][-1] == "root"


def test_an_unknown_mode_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="auto, root or user"):
        host.resolve_mode("vm")


# --- doctor --------------------------------------------------------------------------------------------------


def test_doctor_on_this_machine_says_whether_nodes_can_run(capsys: pytest.CaptureFixture[str]) -> None:
    status = command_line.main(["doctor"])
    said = capsys.readouterr().out
    assert status in (0, 1)
    assert ("Nodes can run here" in said) == (status == 0)
    assert ("Nodes can't run here" in said) == (status == 1)
    assert "Sandbox `root`" in said
    assert "Sandbox `user`" in said


def test_doctor_prints_the_mend_under_what_is_missing(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = _machine(fake, lacks=["systemd-nspawn"])
    monkeypatch.setattr(host, "Host", lambda: machine)
    assert command_line.main(["doctor", "--sandbox", "root"]) == 1
    lines = capsys.readouterr().out.splitlines()
    missing = next(number for number, line in enumerate(lines) if "missing  systemd-nspawn" in line)
    assert lines[missing + 1].strip() == "mend it with: apt-get install systemd-container"
    assert lines[-1] == "Nodes can't run here: systemd-nspawn."


@pytest.mark.parametrize(
    ("uid_map", "confined"),
    [
        pytest.param("         0          0 4294967295\n", False, id="the machine's own"),
        pytest.param("         0  872415232      65536\n", True, id="a build of Nix"),
        pytest.param("         0       1000          1\n", True, id="a user's"),
    ],
)
def test_a_user_namespace_is_seen(tmp_path: Path, uid_map: str, confined: bool) -> None:
    fake = Fake(tmp_path, "")
    fake.write("/proc/self/uid_map", uid_map)
    assert host.in_user_namespace(host.Host(tree=Tree(root=tmp_path))) is confined
