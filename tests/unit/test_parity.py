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
