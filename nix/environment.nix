# A Python with pytest and the plugin. `packages` gives further ones from the package set of that Python.
{ pkgs }:
packages:

let
  plugin = import ./plugin.nix { inherit pkgs; };
in
if plugin == null then
  throw (
    "pytest-nspawn needs pytest 9.1 or newer, and this nixpkgs has ${pkgs.python3.pkgs.pytest.version or "none"}: "
    + "give mkTest a `python` of your own, with pytest and the plugin"
  )
else
  pkgs.python3.withPackages (set: [ plugin ] ++ packages set)
