"""What this machine offers to nodes, and the command that mends what it lacks.

`python -m pytest_nspawn doctor` prints the checks; the sandbox asks for its mode and its cgroups. Kernel features are
tried in throw-away namespaces, never guessed from versions or module lists.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pytest_nspawn.cgroups import LIMITS, CgroupHome, Tree, cgroup_home, own_cgroup
from pytest_nspawn.errors import ConfigError, HostError

__all__ = [
    "CgroupHome",
    "Check",
    "Host",
    "Mode",
    "cgroup_home",
    "checks",
    "in_user_namespace",
    "own_cgroup",
    "resolve_mode",
]

Mode = Literal["root", "user"]

_OLDEST_KERNEL = (5, 14)
"""The first with cgroup.kill, by which a sandbox ends."""

_OLDEST_NSPAWN = 249
_IDS = 65536
_CAP_SYS_ADMIN = 21

_PACKAGES = {
    "apt-get": ("apt-get install", {}),
    "dnf": ("dnf install", {"uidmap": "shadow-utils", "iproute2": "iproute"}),
    "pacman": ("pacman -S", {"systemd-container": "systemd", "uidmap": "shadow"}),
    "zypper": ("zypper install", {"uidmap": "shadow"}),
}
"""How a package manager is called, and its names where they are not Debian's."""

_FEATURES = {
    "tmpfs": ("file systems in memory (tmpfs)", None),
    "overlay": ("overlay file systems", "modprobe overlay"),
    "cgroup2": ("a cgroup v2 of its own", None),
    "devpts": ("pseudo-terminals (devpts)", None),
    "veth": ("pairs of network links (veth)", "modprobe veth"),
    "bridge": ("network bridges", "modprobe bridge"),
}

_TOOLS = {"unshare": "util-linux", "ip": "iproute2"}
"""What the probe runs, and the packages."""

# Runs as PID 1 of fresh namespaces, which take its mounts and links with them. The first line says that they exist.
_PROBE = r"""
echo 'namespaces:'
try() {
    name=$1; shift
    if said=$("$@" 2>&1); then said=; else said=${said:-failed}; fi
    printf '%s:%s\n' "$name" "$(printf %s "$said" | head -n 1)"
}
try tmpfs mount -t tmpfs -o size=1m,mode=755 tmpfs /run
mkdir /run/lower /run/upper /run/work /run/merged /run/cgroup /run/pts
try overlay mount -t overlay -o lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work overlay /run/merged
try cgroup2 mount -t cgroup2 cgroup2 /run/cgroup
try devpts mount -t devpts -o newinstance,ptmxmode=0666 devpts /run/pts
try veth ip link add type veth
try bridge ip link add type bridge
"""


_IDMAP_PROGRAM = """
import sys
sys.path.insert(0, {home!r})
from pytest_nspawn.inside.probe import main
main()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that nodes need (`required`) or can use; `found` says what is there, `problem` what is not."""

    name: str
    ok: bool
    required: bool = True
    found: str = ""
    problem: str = ""
    mend: str | None = None


def _run(command: Sequence[str]) -> tuple[int, str]:
    from pytest_nspawn import process

    result = process.run(command, timeout=20)
    return result.returncode, result.stdout + result.stderr


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine as probes see it: files, programs on PATH, a way to run them. Tests hand in their own."""

    tree: Tree = field(default_factory=Tree)
    which: Callable[[str], str | None] = shutil.which
    run: Callable[[Sequence[str]], tuple[int, str]] = _run
    user_name: Callable[[int], str] = _user_name
    release: str = field(default_factory=lambda: os.uname().release)

    def install(self, package: str) -> str | None:
        """The command that installs a package, by its Debian name."""
        for program, (command, names) in _PACKAGES.items():
            if self.which(program):
                return self.as_root(f"{command} {names.get(package, package)}")
        return "nix develop" if self.which("nix") else None

    def as_root(self, command: str) -> str:
        """The command as this user has to type it."""
        return command if self.tree.user == 0 else f"sudo {command}"


def resolve_mode(option: str, host: Host | None = None) -> Mode:
    """Which sandbox `--nspawn-sandbox` means here. Raises ConfigError, or HostError for `root` without it."""
    host = host or Host()
    privileged = host.tree.user == 0 and _has_sys_admin(host)
    if option == "auto":
        return "root" if privileged else "user"
    if option == "user":
        return "user"
    if option != "root":
        raise ConfigError(problem="no such sandbox", value=option, hint="it is auto, root or user")
    if not privileged:
        raise HostError(problem=_no_root(host), mend="pytest --nspawn-sandbox=user")
    return "root"


def in_user_namespace(host: Host | None = None) -> bool:
    """Whether this is another user namespace than the machine's (user_namespaces(7)): in a container, in a build of Nix."""
    words = (host or Host()).tree.read("/proc/self/uid_map").split()
    return words != ["0", "0", "4294967295"]


def checks(mode: Mode, host: Host | None = None) -> list[Check]:
    """Everything that a sandbox of this mode needs or can use on this machine."""
    host = host or Host()
    found = [_kernel(host), _nspawn(host), _bash(host), _systemd(host), *_nix(host)]
    if mode == "user":
        found += _subordinate_ids(host)
    elif not (host.tree.user == 0 and _has_sys_admin(host)):
        found.append(Check(name="root", ok=False, problem=_no_root(host), mend=_become_root(host)))
        return found
    found += _cgroups(host, mode)
    found += _features(host, mode)
    if mode == "root":
        found.append(_idmapped_mounts(host))
    return found


def _has_sys_admin(host: Host) -> bool:
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", host.tree.read("/proc/self/status"), re.MULTILINE)
    return bool(capabilities and int(capabilities[1], 16) >> _CAP_SYS_ADMIN & 1)


def _no_root(host: Host) -> str:
    if host.tree.user == 0:
        return "root here lacks CAP_SYS_ADMIN (an unprivileged container: start it with --privileged)"
    return f"this is user {host.user_name(host.tree.user)}, not root"


def _become_root(host: Host) -> str | None:
    return None if host.tree.user == 0 else 'sudo env "PATH=$PATH" pytest'


def _kernel(host: Host) -> Check:
    numbers = tuple(int(number) for number in re.findall(r"\d+", host.release)[:2])
    return Check(
        name="kernel",
        ok=numbers >= _OLDEST_KERNEL,
        found=f"Linux {host.release}",
        problem=f"Linux {host.release}; nodes need {'.'.join(map(str, _OLDEST_KERNEL))} or newer (cgroup.kill)",
    )


def _nspawn(host: Host) -> Check:
    name = "systemd-nspawn"
    if not host.which(name):
        return Check(name=name, ok=False, problem="not installed", mend=host.install("systemd-container"))
    _, said = host.run([name, "--version"])
    version = re.match(r"systemd (\d+)(?: \((\S+)\))?", said)
    if version is None or int(version[1]) < _OLDEST_NSPAWN:
        says = said.partition("\n")[0].strip() or "says no version"
        problem = f"{says}; nodes need systemd {_OLDEST_NSPAWN} or newer"
        return Check(name=name, ok=False, problem=problem, mend=host.install("systemd-container"))
    return Check(name=name, ok=True, found=version[2] or version[1])


def _bash(host: Host) -> Check:
    path = host.which("bash")
    return Check(
        name="bash", ok=bool(path), found=path or "", problem="not installed", mend=host.install("bash")
    )


def _nix(host: Host) -> list[Check]:
    """NixOS configurations are built by Nix; strace tells what an evaluation read, so that it need not be repeated."""
    nix, strace = host.which("nix-instantiate"), host.which("strace")
    no_nix = "Nix not installed: no nodes with a NixOS config, but prebuilt ones (--nspawn-manifest)"
    checks = [
        Check(
            name="image `nixos`",
            ok=bool(nix),
            required=False,
            found=nix or "",
            problem=no_nix,
            mend=host.install("nix-bin"),
        )
    ]
    if nix:
        checks.append(_build_users(host))
        checks.append(
            Check(
                name="strace",
                ok=bool(strace),
                required=False,
                found=strace or "",
                problem="not installed: every run evaluates NixOS configurations anew",
                mend=host.install("strace"),
            )
        )
    return checks


def _build_users(host: Host) -> Check:
    """As root Nix builds as the members of a group (nix.conf(5), build-users-group), which nobody may have made."""
    _, said = host.run(["nix", "--extra-experimental-features", "nix-command", "show-config"])
    match = re.search(r"^build-users-group = (\S+)$", said, re.MULTILINE)
    group = match[1] if match is not None and host.tree.user == 0 else None
    ok = group is None or host.run(["getent", "group", group])[0] == 0
    mend = (
        host.install("nix-setup-systemd")
        if host.which("apt-get")
        else "echo 'build-users-group =' >> /etc/nix/nix.conf"
    )
    return Check(
        name="builds of Nix",
        ok=ok,
        required=False,
        found=f"as users of the group {group}" if group else "as the user who asks, or by Nix's daemon",
        problem=f"as root it builds as users of the group {group}, which does not exist",
        mend=mend,
    )


def _systemd(host: Host) -> Check:
    """The `host` image boots the machine's own systemd."""
    units = ("/usr/lib/systemd/system", "/lib/systemd/system")
    buses = [
        f"{path}/{unit}"
        for path in units
        for unit in ("dbus.service", "dbus-broker.service")
        if host.tree.at(f"{path}/{unit}").exists()
    ]
    binaries = (
        "/usr/lib/systemd/systemd",
        "/lib/systemd/systemd",
        "/run/current-system/systemd/lib/systemd/systemd",
    )
    missing = [] if any(host.tree.at(path).exists() for path in binaries) else ["systemd"]
    missing += [] if buses else ["dbus"]
    return Check(
        name="image `host`",
        ok=not missing,
        required=False,
        found="this machine's own systemd",
        problem=f"this machine has no {' and no '.join(missing)} to boot; images of other kinds work",
        mend=host.install(" ".join(missing)),
    )


def _subordinate_ids(host: Host) -> Iterator[Check]:
    """User namespaces without root: setuid programs of `uidmap`, and ranges to map (subuid(5))."""
    missing = [name for name in ("newuidmap", "newgidmap") if not host.which(name)]
    yield Check(
        name="uidmap",
        ok=not missing,
        found="newuidmap, newgidmap",
        problem=f"{' and '.join(missing)} not installed",
        mend=host.install("uidmap"),
    )
    user = host.user_name(host.tree.user)
    short = [
        file
        for file in ("/etc/subuid", "/etc/subgid")
        if not any(count >= _IDS for count in _ranges(host, file, user))
    ]
    yield Check(
        name="subordinate ids",
        ok=not short,
        found=f"{user} has {_IDS} or more",
        problem=f"user {user} has no range of {_IDS} ids in {' and '.join(short)}",
        mend=host.as_root(_add_ids(host, short, user)),
    )


def _ranges(host: Host, file: str, user: str) -> Iterator[int]:
    for owner, _, count in _lines(host, file):
        if owner in (user, str(host.tree.user)):
            yield count


def subordinate_ids(file: str, host: Host | None = None) -> list[list[int]]:
    """What to map beside the user's own id, as newuidmap(1) takes it: [id inside, id outside, count]."""
    host = host or Host()
    user = host.user_name(host.tree.user)
    for owner, start, count in _lines(host, file):
        if owner in (user, str(host.tree.user)) and count >= _IDS:
            return [[1, start, count]]
    return []


def _lines(host: Host, file: str) -> Iterator[tuple[str, int, int]]:
    for line in host.tree.read(file).splitlines():
        words = line.split(":")
        if len(words) == 3 and words[1].isdigit() and words[2].isdigit():
            yield words[0], int(words[1]), int(words[2])


def _add_ids(host: Host, files: Sequence[str], user: str) -> str:
    taken = [
        start + count for file in ("/etc/subuid", "/etc/subgid") for _, start, count in _lines(host, file)
    ]
    first = max([100000, *taken])
    flags = {"/etc/subuid": "--add-subuids", "/etc/subgid": "--add-subgids"}
    return " ".join(["usermod", *(f"{flags[file]} {first}-{first + _IDS - 1}" for file in files), user])


def _cgroups(host: Host, mode: Mode) -> Iterator[Check]:
    try:
        home = cgroup_home(host.tree)
    except HostError as error:
        yield Check(name="control groups", ok=False, problem=error.problem, mend=error.mend)
        return
    where = f"under {home.path}" if home.path else f"a scope of its own ({' '.join(home.scope_prefix)})"
    yield Check(name="control groups", ok=True, found=where)
    v1 = {} if mode == "user" else home.v1
    for name, option in zip(LIMITS, ("memory", "tasks", "cpus"), strict=True):
        yield Check(
            name=f"limit `{option}`",
            ok=name in home.controllers or name in v1,
            required=False,
            found=f"{name} controller of cgroup v{2 if name in home.controllers else 1}",
            problem=_no_limit(host, name),
        )


def _no_limit(host: Host, controller: str) -> str:
    hierarchies = {words[0]: words for words in map(str.split, host.tree.read("/proc/cgroups").splitlines())}
    if controller not in hierarchies:
        return f"the kernel has no {controller} controller"
    if hierarchies[controller][1] != "0":
        return f"the {controller} controller is bound to cgroup v1, where only root can use it"
    return f"the {controller} controller is not handed to this process's control group"


def _features(host: Host, mode: Mode) -> Iterator[Check]:
    """Try what a sandbox does, in namespaces of its own."""
    lacking = [(program, package) for program, package in _TOOLS.items() if not host.which(program)]
    for program, package in lacking:
        yield Check(name=program, ok=False, problem="not installed", mend=host.install(package))
    if lacking:
        return
    user = ["--user", "--map-root-user"] if mode == "user" else []
    kinds = [
        "--mount",
        "--net",
        "--ipc",
        "--uts",
        "--cgroup",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    _, said = host.run(["unshare", *user, *kinds, "sh", "-c", _PROBE])
    results = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    made = "namespaces" in results
    yield Check(
        name="namespaces",
        ok=made,
        found="mount, network, PID, cgroup, UTS, IPC" + (", user" if user else ""),
        problem=said.strip().partition("\n")[0] or "they can't be made",
        mend=_allow_namespaces(host) if user else None,
    )
    for name, (what, mend) in _FEATURES.items() if made else ():
        problem = results.get(name, "the probe did not get that far").strip()
        yield Check(
            name=name, ok=not problem, found=what, problem=problem, mend=host.as_root(mend) if mend else None
        )


def _allow_namespaces(host: Host) -> str | None:
    """What distributions use to forbid user namespaces to ordinary users."""
    switches = {
        "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
        "kernel.unprivileged_userns_clone": ("0", "1"),
        "user.max_user_namespaces": ("0", "10000"),
    }
    wrong = [
        f"{name}={right}"
        for name, (bad, right) in switches.items()
        if host.tree.read(f"/proc/sys/{name.replace('.', '/')}").strip() == bad
    ]
    return host.as_root(f"sysctl {' '.join(wrong)}") if wrong else None


def _idmapped_mounts(host: Host) -> Check:
    program = _IDMAP_PROGRAM.format(home=str(Path(__file__).resolve().parent.parent))
    code, said = host.run([sys.executable, "-I", "-S", "-c", program, "/usr"])
    return Check(
        name="idmapped mounts",
        ok=code == 0,
        required=False,
        found="each node gets a user namespace of its own",
        problem=f"{said.strip().splitlines()[-1] if said.strip() else 'refused'}; nodes share the user ids of the sandbox",
    )
