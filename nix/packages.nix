# The plugin and the command; none where this nixpkgs has no pytest that is new enough.
{ pkgs, ... }:

let
  pytest-nspawn = import ./plugin.nix { inherit pkgs; };
in
pkgs.lib.optionalAttrs (pytest-nspawn != null) {
  inherit pytest-nspawn;
  default = pytest-nspawn;
  nixos-nspawn = pkgs.callPackage ./command.nix { inherit pytest-nspawn; };
}
