# The plugin as a package of the given nixpkgs, or null where its pytest is too old.
{ pkgs }:

let
  set = pkgs.python3.pkgs;
in
if set ? pytest && builtins.compareVersions set.pytest.version "9.1" >= 0 then
  set.callPackage ./package.nix { }
else
  null
