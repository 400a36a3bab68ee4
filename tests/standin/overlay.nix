# What the project's flake asks for and nodes do not: Python packages, and names of what is only evaluated, never built.
{ libraries }:
pkgs: _:

let
  unbuilt =
    name: attributes:
    pkgs.runCommand name attributes ''
      echo "the stand-in has no ${name}" >&2
      exit 1
    '';
in
{
  python3 = import ./python.nix { inherit libraries pkgs; };
  mkShell = attributes: unbuilt "shell" attributes;
  nixosTest = test: unbuilt "vm-test-${test.name}" { inherit (test) testScript; };
  makeWrapper = unbuilt "makeWrapper" { };
  nixfmt-tree = unbuilt "nixfmt-tree" { };
  ruff = unbuilt "ruff" { };
  strace = unbuilt "strace" { };
}
