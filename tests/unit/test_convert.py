"""NixOS tests as pytest files: the nodes' own text, and the script as a function."""

from __future__ import annotations

import ast
import textwrap

import pytest

from pytest_nspawn.cli.nixtext import node_texts
from pytest_nspawn.cli.rewrite import rewrite
from pytest_nspawn.errors import ConfigError


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{ nodes.web = { a = 1; }; }", {"web": "{ a = 1; }"}),
        ("{ nodes = { web = { pkgs, ... }: { x = pkgs.y; }; db = { }; }; }", {"web": "{ pkgs, ... }: { x = pkgs.y; }", "db": "{ }"}),
        ('{ nodes = { "left-hand" = { }; right-hand = { }; }; }', {"left-hand": "{ }", "right-hand": "{ }"}),
        ('{ pkgs, ... }: { name = "x"; machine = { ... }: { }; }', {"machine": "{ ... }: { }"}),
        ("import ./make-test.nix ({ ... }: { containers.box = { a.b.c = true; }; })", {"box": "{ a.b.c = true; }"}),
        # What needs the rest of the file.
        ("let x = 1; in { nodes.web = { a = x; }; }", {}),
        ("{ lib, ... }: { nodes.web = { a = lib.id 1; }; }", {}),
        ("{ nodes.web = import ./web.nix; }", {}),
        ("{ nodes.web = { imports = [ ./web.nix ]; }; }", {}),
        ("{ nodes.web = { pkgs, ... }: { p = with pkgs; [ curl ]; }; }", {}),
        ('{ nodes.web = { a = "${common}"; }; }', {}),
        ('{ nodes = lib.genAttrs [ "a" ] (name: { }); }', {}),
        ('{ nodes.web = { pkgs, ... }: { a = "${pkgs.writeText "x" common}"; }; }', {}),
        ("{ nodes.web = { pkgs, ... }: { a = ''${pkgs.id ''${common}''}''; }; }", {}),
        # What it binds itself.
        ("{ nodes.web = { lib, ... }: let n = 1; in { a = n; b = lib.id n; }; }", {"web": "{ lib, ... }: let n = 1; in { a = n; b = lib.id n; }"}),
        ("{ nodes.web = args@{ ... }: { a = args.pkgs; f = x: x; }; }", {"web": "args@{ ... }: { a = args.pkgs; f = x: x; }"}),
        # Brackets and semicolons where they are none.
        ("{ nodes.web = { s = ''}; ${\"a;b}\"} ''${x} '''; ''; t = \"};\"; /* }; */ # };\n u = 1; }; }", {"web": "{ s = ''}; ${\"a;b}\"} ''${x} '''; ''; t = \"};\"; /* }; */ # };\n u = 1; }"}),
        ("this is no Nix ((", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_texts_of_nodes(source: str, expected: dict[str, str]) -> None:
    assert node_texts(source) == expected


def body(script: str, *nodes: str, host_names: dict[str, str] | None = None) -> str:
    made = rewrite(textwrap.dedent(script), nodes or ("machine",), host_names or {})
    ast.parse(f"def test():\n{made.body}")
    return textwrap.dedent(made.body)


def test_globals_become_what_a_test_has() -> None:
    assert body("start_all()\nfor each in machines: each.succeed('x')\njoin_all()\n") == (
        "nodes.start_all()\nfor each in nodes.machines: each.succeed('x')\nnodes.join_all()"
    )


def test_what_only_the_driver_has_comes_from_one() -> None:
    text = body("retry(lambda last: True)\nlog.info(vlan2.nr)\nt.assertTrue(driver.machines)")
    assert text.splitlines() == [
        "driver = Driver(nodes)",
        "retry = driver.retry",
        "log = driver.log",
        "vlan2 = next(vlan for vlan in driver.vlans if vlan.nr == 2)",
        "t = unittest.TestCase()",
        "retry(lambda last: True)",
        "log.info(vlan2.nr)",
        "t.assertTrue(driver.machines)",
    ]


def test_a_name_of_the_scripts_own_is_left_alone() -> None:
    assert body("machines = [machine]\nprint(machines)") == "machines = [machine]\nprint(machines)"


def test_a_string_of_several_lines_keeps_them() -> None:
    script = (
        'machine.succeed("""\nfirst\n  second\n""")\nif True:\n    x = (\n        "a"\n        "b"\n    )\n'
    )
    made = rewrite(script, ["machine"], {})
    assert '"""\nfirst\n  second\n""")' in made.body
    assert '            "a"\n            "b"\n' in made.body


def test_globals_of_the_script_are_the_tests_own() -> None:
    text = body("count = 0\ndef add():\n    global count\n    count += 1\nadd()\nassert count == 1\n")
    assert "nonlocal count" in text
    space: dict[str, object] = {}
    exec(f"def test():\n{textwrap.indent(text, '    ')}\ntest()", space)


def test_a_breakpoint_is_pytests() -> None:
    assert body("debug.breakpoint()") == "breakpoint()"


def test_a_host_name_is_another_name() -> None:
    assert (
        body("front_end.succeed('x')", "web", host_names={"front-end": "web"}).splitlines()[0]
        == "front_end = web"
    )


def test_a_global_in_an_f_string() -> None:
    text = body('print(f"{len(machines)} nodes {machines!r}")')
    space = {"nodes": type("Nodes", (), {"machines": [1, 2]})}
    exec(text, space)


@pytest.mark.parametrize("script", ["from os.path import *\n", "if True\n"])
def test_what_no_function_can_hold_is_refused(script: str) -> None:
    with pytest.raises(ConfigError):
        rewrite(script, ["machine"], {})
