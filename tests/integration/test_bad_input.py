"""Bad input, on the real engine: one clear error, with the way out, before anything boots."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

pytestmark = pytest.mark.usefixtures("can_boot")

HEAD = """
import pytest
from pytest_nspawn import Network, Node

"""
RECORDER = """
from pathlib import Path
from pytest_nspawn.sandbox import Sandbox

def note(text):
    with (Path(__file__).parent / "started").open("a") as file:
        file.write(f"{text}\\n")

def pytest_nspawn_node_started(machine):
    note(f"node {machine.name}")

class Noted(Sandbox):
    def __init__(self, *args, **kwargs):
        note("sandbox")
        super().__init__(*args, **kwargs)

import pytest_nspawn.cluster
pytest_nspawn.cluster.Sandbox = Noted
"""
LONG = "x" * 300


@dataclass(frozen=True, kw_only=True)
class Bad:
    """An input, and the one line that says what is wrong with it; the test is called `test_it`."""

    mark: str
    says: str
    argument: str = "nodes"
    networks: str = ""

    @property
    def text(self) -> str:
        networks = f"@pytest.mark.networks({self.networks})\n" if self.networks else ""
        return f"{HEAD}{networks}@pytest.mark.nodes({self.mark})\ndef test_it({self.argument}):\n    pass\n"


CASES = {
    "unknown name": Bad(
        mark="server=Node()",
        argument="server, sever",
        says="no node and no fixture has the name: 'sever'; the nodes of this test: server (did you mean 'server'?)",
    ),
    "no host name": Bad(
        mark="**{'web.server': Node()}",
        says="node 'web.server': no host may have this name: 'web.server'; give 1 to 63 letters*",
    ),
    "same identifier": Bad(
        mark="**{'a-b': Node(), 'a_b': Node()}",
        says="node 'a_b': has the same identifier (a_b) as node 'a-b': 'a_b'; rename one of them",
    ),
    "missing rootfs": Bad(
        mark="web=Node(image='rootfs:missing')",
        says="node 'web': there is no such root file system: 'missing'; tried: */missing",
    ),
    "rootfs that is no OS": Bad(
        mark="web=Node(image='rootfs:empty')",
        says="node 'web': this directory is no root of an OS*: '*/empty'; make one with debootstrap*",
    ),
    "rootfs that is no archive": Bad(
        mark="web=Node(image='rootfs:text.tar')",
        says="node 'web': this file is no tar archive: '*/text.tar'; give a directory, .tar*",
    ),
    "missing config": Bad(
        mark="web='missing.nix'",
        says="node 'web': there is no such config: 'missing.nix'; tried: */missing.nix",
    ),
    "no free address": Bad(
        mark="a=Node(), b=Node()",
        networks="{1: '10.0.0.0/30'}",
        says="node 'b': network 1 has no free address for this node*: '10.0.0.0/30'; *give the network a larger subnet",
    ),
    "no addresses at all": Bad(
        mark="a=Node(networks=['lan'])",
        networks="lan='10.0.0.0/31'",
        says="network 'lan': subnet4: a network without free addresses: '10.0.0.0/31'; give a subnet with room*",
    ),
    "overlapping subnets": Bad(
        mark="web=Node(networks=['one', 'two'])",
        networks="one='10.0.0.0/16', two='10.0.7.0/24'",
        says="node 'web': networks 'one' and 'two' overlap: '10.0.0.0/16 and 10.0.7.0/24'; give one of them another*",
    ),
    "malformed size": Bad(
        mark="web=Node(memory='12X')",
        says="node 'web': memory: malformed size: '12X'; say a number above zero with one of the units*\"512M\"",
    ),
    "long rootfs": Bad(
        mark=f"web=Node(image='rootfs:/{LONG}')",
        says="node 'web': there is no such root file system (File name too long): '/xxx*...*xxx'; give a path*",
    ),
    "long key of files": Bad(
        mark=f"web=Node(files={{'/srv/{LONG}': 'secret words'}})",
        says="node 'web': files: the path is too long: '/srv/xxx*...*xxx'; Linux has at most 255 bytes a name*",
    ),
    "long bind": Bad(
        mark=f"web=Node(binds={{'/mnt': '/{LONG}'}})",
        says="node 'web': binds: there is nothing to bind to /mnt*: '/xxx*...*xxx'; *",
    ),
    "missing bind": Bad(
        mark="web=Node(binds={'/mnt': '/no/such/thing'})",
        says="node 'web': binds: there is nothing to bind to /mnt: '/no/such/thing'; *",
    ),
    "unknown kind of image": Bad(
        mark="web=Node(image='oci:debian')",
        says="node 'web': no such kind of image: 'oci:debian'; known are nixos, host, rootfs:DIR, rootfs:FILE.tar*",
    ),
}


@pytest.fixture
def recorder(pytester: pytest.Pytester) -> pytest.Pytester:
    """An inner project that writes down what it starts."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makeconftest(RECORDER)
    pytester.mkdir("empty")
    (pytester.path / "text.tar").write_text("text")
    return pytester


def started(pytester: pytest.Pytester) -> list[str]:
    """What an inner project has started: sandboxes, and nodes by name."""
    record = pytester.path / "started"
    return record.read_text().splitlines() if record.exists() else []


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES.keys())
def test_one_clear_error_before_anything_boots(recorder: pytest.Pytester, bad: Bad) -> None:
    path = recorder.makepyfile(bad.text)
    result = recorder.runpytest_subprocess("-p", "no:cacheprovider", "-rN")
    result.assert_outcomes(errors=1)
    said = [line for line in result.outlines if line.startswith(f"{path.name}::test_it: ")]
    assert len(said) == 1, result.stdout.str()
    pytest.LineMatcher(said).fnmatch_lines([f"{path.name}::test_it: {bad.says.replace('[', '[[]')}"])
    assert started(recorder) == []
    for noise in ("*Traceback*", ">  *", "E  *", "*secret words*"):
        result.stdout.no_fnmatch_line(noise)
        result.stderr.no_fnmatch_line(noise)


def test_an_unknown_argument_of_a_node_points_at_its_line(recorder: pytest.Pytester) -> None:
    recorder.makepyfile(Bad(mark="web=Node(memorry='1G')", says="").text)
    result = recorder.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*@pytest.mark.nodes(web=Node(memorry='1G'))", "E * unexpected keyword argument 'memorry'"]
    )
    assert started(recorder) == []


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (
            "--nspawn-sandbox=nonsense",
            "ERROR: --nspawn-sandbox: 'nonsense' is none of auto, root, user",
        ),
        ("--nspawn-sandbox=rot", "*'rot' is none of auto, root, user (did you mean 'root'?)"),
        ("--nspawn-nonsense=1", "*unrecognized arguments: --nspawn-nonsense=1"),
        ("--nspawn-boot-timeout=soon", "ERROR: --nspawn-boot-timeout: 'soon' is no number above 0*"),
    ],
)
def test_an_option_is_refused_before_anything_is_collected(
    recorder: pytest.Pytester, option: str, says: str
) -> None:
    recorder.makepyfile(Bad(mark="web=Node()", says="", argument="web").text)
    result = recorder.runpytest_subprocess("-p", "no:cacheprovider", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([says])
    result.stderr.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*collected*")
    assert started(recorder) == []


@pytest.mark.parametrize("image", [f"rootfs:/{LONG}", "rootfs:missing", "oci:debian"])
def test_an_image_of_the_command_line_is_looked_up_before_anything_boots(
    recorder: pytest.Pytester, image: str
) -> None:
    path = recorder.makepyfile(Bad(mark="web=Node()", says="", argument="web").text)
    result = recorder.runpytest_subprocess("-p", "no:cacheprovider", f"--nspawn-image={image}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"{path.name}::test_it: node 'web': *no such *; *"])
    assert started(recorder) == []


def test_a_port_in_use(recorder: pytest.Pytester) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        recorder.makepyfile(
            f"{HEAD}@pytest.mark.nodes(web=Node(), start=False)\n"
            f"def test_it(web):\n    web.forward_port({port}, 80)\n"
        )
        result = recorder.runpytest_subprocess("-p", "no:cacheprovider", "-rf")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            f">       web.forward_port({port}, 80)",
            f"E *ConfigError: node 'web': forward_port: port {port} of this machine is in use*; choose another, or *",
            "FAILED *::test_it - *ConfigError: *",
        ]
    )
    result.stdout.no_fnmatch_line("*direct cause*")
    assert started(recorder) == ["sandbox"]


def test_what_is_started_is_written_down(recorder: pytest.Pytester) -> None:
    recorder.makepyfile(Bad(mark="web=Node()", says="", argument="web").text)
    recorder.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert started(recorder) == ["sandbox", "node web"]
