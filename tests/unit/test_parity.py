"""Every method of the NixOS test driver has its tests: of its result, its failure, its time-out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.integration.parity import METHODS, NO_FAILURE

TESTS = {
    node.name
    for path in (Path(__file__).resolve().parents[1] / "integration").glob("test_parity_*.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_a_test_of_its_result(method: str) -> None:
    assert f"test_{method}" in TESTS


@pytest.mark.parametrize("method", sorted(set(METHODS) - NO_FAILURE))
def test_a_method_has_a_test_of_its_failure(method: str) -> None:
    assert any(name.startswith(f"test_{method}_fails") for name in TESTS)


@pytest.mark.parametrize("method", [name for name, shape in METHODS.items() if "timeout" in shape])
def test_a_method_with_a_limit_has_a_test_of_it(method: str) -> None:
    assert any(name.startswith(f"test_{method}_") and "times_out" in name for name in TESTS)


# Rows of docs/nixos-tests.md, "Where it is better, and differs": the tests that prove our side.
DIFFERENCES = {
    "waits": ["test_wait_for_unit", "test_wait_for_file", "test_wait_for_open_port"],
    "`polling_condition`": ["test_polling_condition_fails_the_running_command_at_once"],
    "global time-out": ["test_global_timeout_ends_what_waits_in_a_node"],
    "a container that restarts": ["test_a_restarted_node_works"],
    "`reboot`, `crash`, `block`, `unblock`, `forward_port`, console, `get_tty_text`, `wait_for_x`": [
        "test_reboot",
        "test_crash",
        "test_block",
        "test_forward_port",
        "test_get_console_log",
        "test_get_tty_text",
        "test_wait_for_x",
    ],
    "`block()`": ["test_block", "test_a_node_stays_unplugged_over_a_restart"],
    "`execute(check_return=False)`": ["test_execute_without_checks"],
    "`execute(timeout=...)`": ["test_execute_times_out"],
    "`wait_for_unit` of a user": ["test_wait_for_unit_of_a_user_fails"],
    "`fail(...)`": ["test_fail"],
    '`get_tty_text("1")`': ["test_get_tty_text", "test_get_tty_text_fails"],
    "`copy_from_machine`": ["test_links_of_a_node_lead_nowhere_outside_it"],
    "one failing subtest": ["test_the_script_may_go_on_after_a_failing_subtest"],
    "JUnit": ["test_junit_has_one_testcase_with_a_property_for_each_subtest"],
    "a failed assertion": ["test_a_failure_shows_the_lines_of_the_nix_file"],
    "two runs at once": ["test_both_workers_have_nodes_and_networks_of_the_same_names"],
    "root": [],  # tests/integration/test_user.py runs as an ordinary user
    "type check and lint of the script": [],
    "a node's network": ["test_one_link_of_two"],
}


def test_each_difference_in_the_docs_has_its_tests() -> None:
    home = Path(__file__).resolve().parents[2]
    page = (home / "docs" / "nixos-tests.md").read_text(encoding="utf-8")
    table = page.partition("## Where it is better, and differs")[2]
    lines = [line for line in table.splitlines() if line.startswith("| ") and line[2:3] not in "|-"]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == list(DIFFERENCES)
    everything = {
        node.name
        for path in (home / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert [name for names in DIFFERENCES.values() for name in names if name not in everything] == []
