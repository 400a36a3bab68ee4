"""Our hooks, as a conftest or another plugin has them."""

from __future__ import annotations

from .conftest import Project

CONFTEST = """
import threading
from fake_engine import note

def seen(what, machine):
    assert threading.current_thread() is threading.main_thread()
    note(f"{what} {machine.name}")

def pytest_nspawn_image_kinds(config):
    return {"oci": lambda text: None, "box": lambda text: None}

def pytest_nspawn_node_args(node, args, name):
    args.append(f"--setenv=NAME={name}:{node.memory}")

def pytest_nspawn_node_started(machine):
    seen("saw start of", machine)

def pytest_nspawn_node_ready(machine):
    seen("saw ready", machine)

def pytest_nspawn_node_failed(machine):
    seen("saw failure of", machine)

def pytest_nspawn_node_stopped(machine):
    seen("saw stop of", machine)

def pytest_nspawn_command(machine, result):
    seen(f"saw {result.command} in", machine)
"""


def test_another_plugin_sees_nodes_and_commands_in_order(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(a=Node(memory='1M'))\ndef test_it(a):\n    a.succeed('true')\n", conftest=CONFTEST
    ).run(passed=1)
    assert project.everything == [
        "engine host box oci",
        "args a --setenv=NAME=a:1M",
        "boot a",
        "start a",
        "saw start of a",
        "saw ready a",
        "saw true in a",
        "close a",
        "saw stop of a",
        "engine closed",
    ]


def test_a_failed_boot_is_told(project: Project) -> None:
    project.write("@pytest.mark.nodes(broken=Node())\ndef test_it(broken): pass\n", conftest=CONFTEST)
    project.run(passed=1, errors=1)
    assert "saw failure of broken" in project.record


def test_commands_from_other_threads_are_told_on_the_main_one(project: Project) -> None:
    project.write(
        "import threading\n@pytest.mark.nodes(a=Node())\ndef test_it(a):\n"
        "    threads = [threading.Thread(target=a.succeed, args=(f'c{n}',)) for n in range(3)]\n"
        "    for each in threads: each.start()\n    for each in threads: each.join()\n",
        conftest=CONFTEST,
    ).run(passed=1)
    assert sorted(line for line in project.record if line.startswith("saw c")) == [
        f"saw c{n} in a" for n in range(3)
    ]


def test_a_hook_may_run_commands(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(a=Node())\ndef test_it(a): pass\n",
        conftest="from fake_engine import note\n"
        "def pytest_nspawn_node_ready(machine):\n    machine.succeed('true')\n"
        "def pytest_nspawn_command(machine, result):\n    note(f'saw {result.command}')\n",
    ).run(passed=1)
    assert project.record == ["boot a", "start a", "saw true", "close a"]


def test_a_faulty_hook_fails_the_test_and_names_itself(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(a=Node())\ndef test_it(a):\n    a.succeed('true')\n",
        conftest="def pytest_nspawn_command(machine, result):\n    raise RuntimeError('a faulty hook')\n",
    )
    project.run(failed=1).stdout.fnmatch_lines(["E*RuntimeError: a faulty hook"])
