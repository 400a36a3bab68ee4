# A node of an existing NixOS test as a module by itself: what the mark of a converted test has.
{ reference, node }:
{
  config,
  lib,
  modulesPath,
  nodes,
  nspawnPackages,
  ...
}:

let
  test = import ./test.nix {
    inherit lib reference;
    inherit (nspawnPackages) system;
    nixpkgs = /. + dirOf (dirOf (toString modulesPath));
    pkgs = nspawnPackages;
    interactive = false;
    configs = {
      inherit nodes;
      containers = nodes;
      allMachines = nodes;
    };
  };
in
{
  imports = (test.nodes // test.containers).${node} or (throw "the test has no node ${node}");
  config = {
    _module.args = test.specialArgs;
    # Stronger than what all nodes have, weaker than what the node says.
    virtualisation.additionalPaths = test.references;
    nixpkgs.pkgs = lib.mkIf (test.packages != null && config.nixpkgs.config == { }) (lib.mkOverride 900 test.packages);
  };
}
