"""What a NixOS test is given by what calls it, and sees of its own nodes. Evaluated, not built: an outline is enough."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nspawn.errors import NixError
from pytest_nspawn.nixbuild import Builder

# Each test's script has lines `KEY=VALUE`, which say what Nix made of it.


@pytest.fixture
def said(nixpkgs: Path, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """What the script of a test says that stands in a file, with others beside it."""
    (tmp_path / "make-test-python.nix").write_text('throw "it would make virtual machines"')

    def evaluate(test: str, name: str = "", **beside: str) -> dict[str, str]:
        path = tmp_path / "test.nix"
        path.write_text(test)
        for file, text in beside.items():
            (tmp_path / f"{file}.nix").write_text(text)
        reference = f"{path}#{name}" if name else path
        outline = Builder(option=str(nixpkgs)).outline(reference, [])
        return dict(line.split("=", 1) for line in outline.script.splitlines())

    return evaluate


def test_modules_of_a_test_see_its_nodes(said: Callable[..., dict[str, str]]) -> None:
    assert said(
        """
        { config, nodes, containers, ... }:
        {
          name = "seen";
          nodes.web = { name, config, ... }: {
            networking.hostName = "front-${name}-${toString config.virtualisation.test.nodeNumber}";
          };
          containers.box = { nodes, ... }: { networking.domain = "of.${nodes.web.networking.hostName}"; };
          testScript = ''
            argument=${nodes.web.networking.hostName}
            config=${config.nodes.web.networking.hostName}
            old=${nodes.web.config.networking.hostName}
            container=${config.containers.box.networking.domain}
            names=${toString (builtins.attrNames nodes)} ${toString (builtins.attrNames containers)}
          '';
        }
        """
    ) == {
        "argument": "front-web-2",
        "config": "front-web-2",
        "old": "front-web-2",
        "container": "of.front-web-2",
        "names": "web box",
    }


def test_defaults_are_those_of_the_kind(said: Callable[..., dict[str, str]]) -> None:
    assert said(
        """
        {
          name = "defaults";
          nodes.a = { };
          containers.b = { };
          defaults.environment.etc.all.text = "";
          nodeDefaults.environment.etc.node.text = "";
          containerDefaults.environment.etc.container.text = "";
          testScript =
            { nodes, containers, ... }:
            let
              has = node: toString (builtins.filter (name: node.environment.etc ? ${name}) [ "all" "node" "container" ]);
            in
            ''
              a=${has nodes.a}
              b=${has containers.b}
            '';
        }
        """
    ) == {"a": "all node", "b": "all container"}


def test_what_a_caller_says_arrives(said: Callable[..., dict[str, str]]) -> None:
    inner = """
        import ./make-test-python.nix ({ lib, ... }@all: {
          name = "called";
          nodes.a = { };
          testScript = "flavour=${all.flavour or "none"}\\nown=${all.pkgs.flavour or "plain"} ${builtins.head (lib.singleton "1")}";
        })
    """
    assert said("import ./inner.nix { }", inner=inner) == {"flavour": "none", "own": "plain 1"}
    outer = """
        { pkgs, ... }:
        {
          one = import ./inner.nix { flavour = "salt"; };
          two = import ./inner.nix { pkgs = pkgs.extend (_: _: { flavour = "sweet"; }); };
        }
    """
    assert said(outer, "one", inner=inner) == {"flavour": "salt", "own": "plain 1"}
    assert said(outer, "two", inner=inner) == {"flavour": "none", "own": "sweet 1"}


@pytest.mark.parametrize(
    "call",
    [
        "(pkgs.extend own).nixosTest",
        "(pkgs.appendOverlays [ own ]).testers.runNixOSTest",
        "(import <nixpkgs> { overlays = [ own ]; }).testers.nixosTest",
    ],
)
def test_nodes_have_the_packages_of_who_calls(said: Callable[..., dict[str, str]], call: str) -> None:
    """A project's own package comes in an overlay."""
    assert said(
        f"""
        {{ pkgs, ... }}:
        let own = _: _: {{ ours = "our own"; }};
        in {call} {{
          name = "packages";
          nodes.a = {{ pkgs, ... }}: {{ environment.etc.x.text = pkgs.ours; }};
          testScript = {{ nodes, ... }}: "etc=${{nodes.a.environment.etc.x.text}}";
        }}
        """
    ) == {"etc": "our own"}


def test_a_node_that_configures_nixpkgs_has_one_of_its_own(
    said: Callable[..., dict[str, str]], nixpkgs: Path
) -> None:
    inner = """
        import ./make-test-python.nix ({ ... }: {
          name = "unfree";
          defaults = { pkgs, ... }: { environment.etc.x.text = toString (pkgs.config.allowUnfree or false); };
          nodes.plain = { };
          nodes.unfree.nixpkgs.config.allowUnfree = true;
          testScript = { nodes, ... }:
            "plain=${nodes.plain.environment.etc.x.text}\nunfree=${nodes.unfree.environment.etc.x.text}";
        })
    """
    test = "{ pkgs, ... }: import ./inner.nix { inherit pkgs; }"
    if not (nixpkgs / "pkgs").exists():
        with pytest.raises(NixError, match=r"the stand-in needs nixpkgs\.pkgs"):  # it cannot make one
            said(test, inner=inner)
        return
    assert said(test, inner=inner) == {"plain": "", "unfree": "1"}


def test_nodes_have_the_packages_that_a_test_says(said: Callable[..., dict[str, str]]) -> None:
    assert said(
        """
        { pkgs, ... }:
        {
          name = "packages";
          node.pkgs = pkgs.extend (_: _: { ours = "our own"; });
          node.specialArgs.word = "special";
          nodes.a = { pkgs, word, ... }: { environment.etc.x.text = "${pkgs.ours} ${word}"; };
          testScript = { nodes, ... }: "etc=${nodes.a.environment.etc.x.text}";
        }
        """
    ) == {"etc": "our own special"}


@pytest.mark.parametrize("of", ["runTest", "evalTest"])
def test_the_result_of_a_test_is_the_test(said: Callable[..., dict[str, str]], of: str) -> None:
    assert said(
        f"""
        {{ pkgs, ... }}:
        let nixos-lib = import (pkgs.path + "/nixos/lib") {{ }};
        in (nixos-lib.{of} {{
          hostPkgs = pkgs;
          imports = [ ./inner.nix ];
        }}).config.result
        """,
        inner='{ name = "inner"; nodes.a = { }; testScript = { nodes, ... }: "name=${nodes.a.networking.hostName}"; }',
    ) == {"name": "a"}


LISTS = {
    "20.09": """
        { system, pkgs, callTest }:
        let
          discover = value:
            if !builtins.isAttrs value then value
            else if value ? test then callTest value
            else builtins.mapAttrs (_: discover) value;
        in
        { plain = { }; some.inner = discover (import ./inner.nix { inherit system pkgs; }); }
    """,
    "26.05": """
        { system, pkgs, callTest }:
        let
          evaluated = (import (pkgs.path + "/nixos/lib/testing-python.nix") { inherit system pkgs; }).evalTest {
            imports = [ ./module.nix ];
          };
        in
        { some.inner = callTest { test = evaluated.config.result; }; }
    """,
}


@pytest.mark.parametrize("release", LISTS)
def test_a_list_of_tests_as_nixpkgs_has_it(said: Callable[..., dict[str, str]], release: str) -> None:
    module = '{ name = "inner"; nodes.a = { }; testScript = { nodes, ... }: "name=${nodes.a.networking.hostName}"; }'
    inner = f"import ./make-test-python.nix ({{ ... }}: {module})"
    assert said(LISTS[release], "some.inner", inner=inner, module=module) == {"name": "a"}


def test_a_script_of_several_parts(said: Callable[..., dict[str, str]]) -> None:
    inner = """
        { lib, ... }: {
          nodes.a.networking.hostName = "renamed";
          testScript = lib.mkBefore "first=1";
        }
    """
    assert list(
        said(
            """
            { lib, ... }: {
              imports = [ ./inner.nix { testScript = lib.mkAfter "last=3"; } ];
              testScript = { nodes, ... }: "name=${nodes.a.networking.hostName}";
            }
            """,
            inner=inner,
        ).items()
    ) == [("first", "1"), ("name", "renamed"), ("last", "3")]


def test_a_file_may_ask_for_packages(said: Callable[..., dict[str, str]]) -> None:
    """As what is meant for callPackage does."""
    assert said(
        """
        { testers, hello, flavour ? "plain" }:
        testers.runNixOSTest {
          name = "packages";
          nodes.a = { };
          testScript = "hello=${hello.name}\nflavour=${flavour}";
        }
        """
    ).keys() == {"hello", "flavour"}


def test_a_test_that_is_extended(said: Callable[..., dict[str, str]]) -> None:
    assert said(
        """
        { pkgs, ... }:
        let
          base = pkgs.testers.runNixOSTest {
            name = "base";
            nodes.a = { };
            testScript = { nodes, ... }: "name=${nodes.a.networking.hostName}\\ndomain=${nodes.a.networking.domain}";
          };
        in
        (base.extend { modules = [ { nodes.a.networking.hostName = "changed"; } ]; }).extendNixOS {
          module = { networking.domain = "example"; };
        }
        """
    ) == {"name": "changed", "domain": "example"}


# As frameworks for flakes do it: inputs by way of `self`, the check's type looked at.
FLAKE = """
{
  inputs.nixpkgs.url = "path:NIXPKGS";
  outputs = { self, ... }: {
    overlays.default = _: _: { ours = "our own"; };
    checks.x86_64-linux.foo =
      let
        plain = self.inputs.nixpkgs.legacyPackages.x86_64-linux;
        pkgs = plain.extend self.overlays.default;
        check = pkgs.testers.runNixOSTest {
          name = "foo";
          nodes.a = { pkgs, ... }: { environment.etc.x.text = pkgs.ours; };
          testScript = { nodes, ... }: "etc=${nodes.a.environment.etc.x.text}";
        };
      in
      assert check.type == "derivation" && check ? outPath && check.system == "x86_64-linux";
      check;
  };
}
"""


def test_a_flakes_check_of_its_own_packages(standin: Path, tmp_path: Path) -> None:
    nixpkgs, project = tmp_path / "nixpkgs", tmp_path / "project"
    nixpkgs.mkdir()
    project.mkdir()
    (nixpkgs / "flake.nix").write_text(
        f'{{ outputs = _: {{ legacyPackages.x86_64-linux = import {standin} {{ system = "x86_64-linux"; }}; }}; }}'
    )
    (project / "flake.nix").write_text(FLAKE.replace("NIXPKGS", str(nixpkgs)))
    builder, check = Builder(option=str(standin)), f"{project}#checks.x86_64-linux.foo"
    with pytest.raises(NixError, match="run `nix flake lock` there"):
        builder.outline(check, [])
    lock = ["nix", "--extra-experimental-features", "nix-command flakes", "flake", "lock", str(project)]
    subprocess.run(lock, check=True, capture_output=True)
    outline = builder.outline(check, [])
    assert outline.script == "etc=our own"


INTERACTIVE = """
{
  name = "mode";
  nodes.a.networking.hostName = "automatic";
  interactive.nodes.a = { lib, ... }: { networking.hostName = lib.mkForce "by-hand"; };
  testScript = "";
}
"""


def test_interactive_settings_hold_for_interact_only(nixpkgs: Path, tmp_path: Path) -> None:
    path = tmp_path / "mode.nix"
    path.write_text(INTERACTIVE)
    builder = Builder(option=str(nixpkgs))

    def host_name(*, interactive: bool) -> str | None:
        test = builder.test(path, [], lambda _outline: None, interactive=interactive)
        return test.facts["a"].host_name

    assert host_name(interactive=False) == "automatic"
    assert host_name(interactive=True) == "by-hand"


def test_a_module_may_give_arguments_to_another(said: Callable[..., dict[str, str]]) -> None:
    inner = '{ flavour, ... }: { nodes.a = { }; testScript = "flavour=${flavour}"; }'
    assert said(
        '{ config, ... }: { imports = [ ./inner.nix ]; _module.args.flavour = "salt"; }', inner=inner
    ) == {"flavour": "salt"}


def test_an_error_names_the_file(said: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    with pytest.raises(NixError) as raised:
        said(
            "{ nodes.a.networking.hostName = { }; testScript = { nodes, ... }: nodes.a.networking.hostName; }"
        )
    assert "node 'a'" in str(raised.value)
    assert f"{tmp_path}/test.nix" in str(raised.value)


@pytest.mark.parametrize(
    ("test", "problem"),
    [
        pytest.param(
            '{ nodes.a = { }; containers.a = { }; testScript = ""; }',
            "nodes and containers have the same names: a",
            id="same name",
        ),
        pytest.param('{ name = "x"; nodes.a = { }; }', "testScript", id="no script"),
        pytest.param(
            '{ pkgs, flavour }: { nodes.a = { }; testScript = ""; }',
            "this file is a function of flavour, which only what calls it can give",
            id="a function of something else",
        ),
        pytest.param(
            "{ pkgs, flavour, ... }: { nodes.a = { }; testScript = flavour; }",
            "this file is a function of flavour, which only what calls it can give",
            id="a function of something more",
        ),
        pytest.param("{ one = 1; }", "this is no NixOS test", id="something else"),
        pytest.param(
            "{ pkgs, ... }: { one = pkgs.nixosTest { }; }",
            "this file holds several tests (one): name one, as in FILE.nix::NAME",
            id="several",
        ),
    ],
)
def test_what_is_no_test_says_so(said: Callable[..., dict[str, str]], test: str, problem: str) -> None:
    with pytest.raises(NixError) as raised:
        said(test)
    assert problem in str(raised.value)
