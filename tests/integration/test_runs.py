"""Whole runs of pytest on real nodes: killed, spread over workers, sharing nodes, watched by another plugin."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import wait_for

from .leftovers import Leftovers, is_gone, processes_in, run_groups

pytestmark = pytest.mark.usefixtures("can_boot")

HEAD = "import os\nfrom pathlib import Path\n\nimport pytest\nfrom pytest_nspawn import Node\n\n"
RECORD = """
import threading
from pathlib import Path

def note(text):
    assert threading.current_thread() is threading.main_thread()
    with (Path(__file__).parent / "record").open("a") as file:
        file.write(f"{text}\\n")

def pytest_nspawn_node_started(machine):
    note(f"started {machine.name}")

def pytest_nspawn_node_ready(machine):
    note(f"ready {machine.name}")

def pytest_nspawn_node_failed(machine):
    note(f"failed {machine.name}")

def pytest_nspawn_node_stopped(machine):
    note(f"stopped {machine.name}")

def pytest_nspawn_command(machine, result):
    note(f"{machine.name}: {result.command} -> {result.exit_code}")
"""
WAITING = """
@pytest.mark.nodes(alpha=Node(), beta=Node())
def test_it(alpha, beta):
    alpha.succeed("true")
    beta.succeed("true")
    pids = [alpha.leader_pid, beta.leader_pid]
    Path("pids.new").write_text(" ".join(map(str, pids)))
    os.rename("pids.new", "pids")
    alpha.succeed("sleep 60")
"""


class Project:
    """An inner project, and what its conftest has written down."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        pytester.makeini("[pytest]\nfilterwarnings = error\n")
        pytester.makeconftest(RECORD)

    def run(self, test: str, *options: str, **outcomes: int) -> pytest.RunResult:
        self.pytester.makepyfile(HEAD + test)
        result = self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)
        result.assert_outcomes(**outcomes)
        result.stderr.no_fnmatch_line("*Traceback*")
        return result

    @property
    def record(self) -> list[str]:
        record = self.pytester.path / "record"
        return record.read_text().splitlines() if record.exists() else []


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A pytest in the middle of a test with two booted nodes."""

    process: subprocess.Popen[bytes]
    leaders: list[int]
    groups: list[Path]
    members: list[int]
    before: Leftovers


@pytest.fixture
def victim(pytester: pytest.Pytester) -> Iterator[Victim]:
    before = Leftovers.now()
    path = pytester.makepyfile(HEAD + WAITING)
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={pytester.path / 'base'}"]
    with (pytester.path / "log").open("wb") as log:
        process = subprocess.Popen([*words, str(path)], cwd=pytester.path, stdout=log, stderr=log)
    pids = pytester.path / "pids"
    try:
        wait_for(lambda: pids.exists() or process.poll() is not None, limit=60)
        assert pids.exists(), (pytester.path / "log").read_text()
        groups = run_groups(process.pid)
        yield Victim(
            process=process,
            leaders=[int(word) for word in pids.read_text().split()],
            groups=groups,
            members=processes_in(groups),
            before=before,
        )
    finally:
        process.kill()
        process.wait()


def children_of(pid: int) -> list[int]:
    """The children of a process, of whatever thread."""
    return [
        int(word)
        for children in Path(f"/proc/{pid}/task").glob("*/children")
        for word in children.read_text().split()
    ]


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_a_pytest_that_is_killed_in_a_test_leaves_nothing(victim: Victim, how: signal.Signals) -> None:
    assert victim.groups
    assert len(victim.members) > 10  # two nodes' worth
    everything = {*victim.leaders, *victim.members, *children_of(victim.process.pid)}
    victim.process.send_signal(how)
    victim.process.wait(60)
    wait_for(lambda: all(map(is_gone, everything)))
    wait_for(lambda: not run_groups(victim.process.pid))
    assert not any(group.exists() for group in victim.groups)
    assert Leftovers.now() == victim.before
    if how == signal.SIGINT:
        assert victim.process.returncode == pytest.ExitCode.INTERRUPTED


def test_both_workers_have_nodes_and_networks_of_the_same_names(project: Project) -> None:
    test = """
SOCKET = "[Socket]\\nListenStream=80\\nAccept=yes\\n[Install]\\nWantedBy=sockets.target\\n"
SERVICE = "[Service]\\nExecStart=/bin/cat /root/side\\nStandardInput=socket\\nStandardOutput=socket\\n"

@pytest.mark.networks(lan="10.20.0.0/24")
@pytest.mark.nodes(
    server=Node(networks=["lan", 2], units={"side.socket": SOCKET, "side@.service": SERVICE}),
    client=Node(networks=["lan", 2]),
)
@pytest.mark.parametrize("side", ["one", "other"])
def test_it(server, client, side):
    server.write_text("/root/side", side)
    client.succeed("true")
    Path(f"{side}.there").touch()
    for _ in range(1200):  # until the nodes of both workers run at the same time
        if Path("one.there").exists() and Path("other.there").exists():
            break
        client.sleep(0.1)
    else:
        raise AssertionError("the other worker did not come")
    for name in ("server", "10.20.0.2", "192.168.2.2"):
        assert client.succeed(f"exec 3<>/dev/tcp/{name}/80; cat <&3", timeout=60) == side
"""
    project.run(test, "-n", "2", passed=2)
    for event in ("started", "ready", "stopped"):
        assert sorted(line for line in project.record if line.startswith(event)) == [
            f"{event} client",
            f"{event} client",
            f"{event} server",
            f"{event} server",
        ]


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--setup-only", "--fixtures"])
def test_what_runs_no_tests_starts_nothing(project: Project, option: str) -> None:
    project.pytester.makepyfile(
        HEAD
        + "@pytest.mark.nodes(web=Node(image='rootfs:missing'))\ndef test_it(web):\n    web.succeed('true')\n"
    )
    result = project.pytester.runpytest_subprocess("-p", "no:cacheprovider", option)
    assert result.ret == pytest.ExitCode.OK
    assert project.record == []


def test_nodes_that_a_module_shares_boot_once(project: Project) -> None:
    test = """
pytestmark = pytest.mark.nodes(web=Node(), scope="module")

def test_first(web):
    web.write_text("/root/first", "here")
    Path("leader").write_text(str(web.leader_pid))

def test_second(web):
    assert web.read_text("/root/first") == "here"
    assert Path("leader").read_text() == str(web.leader_pid)

@pytest.mark.nodes(scope="function")
def test_own(web):
    assert not web.exists("/root/first")
"""
    project.run(test, passed=3)
    boots = [line for line in project.record if line.startswith("started")]
    assert boots == ["started web", "started web"]


def test_hooks_tell_what_happens_to_nodes(project: Project) -> None:
    test = """
@pytest.mark.nodes(web=Node())
def test_it(web):
    web.succeed("true")
    web.execute("exit 3")
    web.shutdown()
    web.start()
    web.succeed("echo again")

@pytest.mark.nodes(bad=Node(nspawn_options=["--no-such-option"]))
def test_bad(bad):
    with pytest.raises(Exception, match="no-such-option"):
        bad.succeed("true")
"""
    project.run(test, passed=2)
    first, second = project.record[:10], project.record[10:]
    assert first == [
        "started web",
        "ready web",
        "web: true -> 0",
        "web: exit 3 -> 3",
        "stopped web",
        "started web",
        "ready web",
        "web: echo again -> 0",
        "stopped web",
        "started bad",
    ]
    assert "failed bad" in second
    assert "ready bad" not in second


def test_another_plugin_adds_a_kind_of_image(project: Project) -> None:
    plugin = """
from dataclasses import replace

def pytest_nspawn_image_kinds(config):
    def twin(argument):
        from pytest_nspawn.images.host import host_image
        return replace(host_image(), description=f"twin of {argument}", environment={"TWIN": argument})
    return {"twin": twin}

def pytest_nspawn_node_args(node, args, name):
    args.append(f"--setenv=CALLED={name}")
"""
    project.pytester.makepyfile(twin_plugin=plugin)
    test = """
@pytest.mark.nodes(web=Node(image="twin:host"))
def test_it(web):
    environment = web.succeed("tr '\\\\0' '\\\\n' < /proc/1/environ").splitlines()
    assert "CALLED=web" in environment

@pytest.mark.nodes(web=Node(image="twins:host"))
def test_unknown(web):
    pass
"""
    result = project.run(test, "-p", "twin_plugin", passed=1, errors=1)
    result.stdout.fnmatch_lines(["*node 'web': no such kind of image: 'twins:host'; known are *, twin"])
