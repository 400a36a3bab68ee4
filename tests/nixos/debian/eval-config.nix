# The tree's own eval-config with the package set of this directory, given as a module: a `pkgs` argument would
# not reach specialisations. `packages` is the set that all systems of an evaluation share, `packagesWith` a new one.
{ settings, packages, packagesWith }:

args@{ system ? settings.system, modules, ... }:

let
  tree = /. + settings.nixpkgs;
  module = { config, lib, ... }: {
    _file = "packages over Debian's programs";
    imports = [ ./system.nix ];
    # Weaker than whoever gives a set of his own, by mkDefault even.
    nixpkgs.pkgs = lib.mkOverride 1400 (if config.nixpkgs.config == { } then packages else packagesWith { inherit (config.nixpkgs) config; });
  };
in
import (tree + "/nixos/lib/eval-config.nix") (args // {
  inherit system;
  modules = [ module ] ++ modules;
})
