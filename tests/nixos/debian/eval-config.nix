# The tree's own eval-config with the package set of this directory, given as a module: a `pkgs` argument would
# not reach specialisations.
{ settings, packages, }:

args@{ system ? settings.system, modules, ... }:

let
  tree = /. + settings.nixpkgs;
  module = {
    _file = "packages over Debian's programs";
    imports = [ ./system.nix ];
    # Weaker than whoever gives a set of his own, by mkDefault even.
    nixpkgs.pkgs = (import (tree + "/lib")).mkOverride 1400 packages;
  };
in
import (tree + "/nixos/lib/eval-config.nix") (args // {
  inherit system;
  modules = [ module ] ++ modules;
})
