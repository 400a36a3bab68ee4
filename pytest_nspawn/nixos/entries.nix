# Entries of a manifest, which is what is known of built systems: of nodes by name, and of an existing NixOS test.
{
  lib,
  nixpkgs,
  pkgs,
  system,
}:

let
  evaluateAll = import ./nodes.nix {
    inherit
      lib
      nixpkgs
      pkgs
      system
      ;
  };

  # Nodes by the modules that each is made of. As in a NixOS test, their numbers are those of their sorted names.
  evaluate =
    {
      specialArgs,
      modules,
      packages ? null,
      references ? [ ],
    }:
    let
      numbers = lib.listToAttrs (lib.imap1 (number: name: lib.nameValuePair name number) (lib.attrNames modules));
    in
    evaluateAll {
      inherit packages references;
      peers = { };
      nodes = lib.mapAttrs (name: values: {
        inherit specialArgs values;
        number = numbers.${name};
        addresses = { };
        networks = null;
        store = null;
      }) modules;
    };
in
{
  nodes = arguments: (evaluate arguments).facts;

  # `outline` needs nothing built, and none of the systems evaluated to its end.
  test =
    {
      reference,
      interactive ? false,
      python ? null,
    }:
    let
      test = import ./test.nix {
        inherit
          interactive
          lib
          nixpkgs
          pkgs
          python
          reference
          system
          ;
        configs = {
          nodes = builtins.intersectAttrs test.nodes all.configs;
          containers = builtins.intersectAttrs test.containers all.configs;
          allMachines = all.configs;
        };
      };
      all = evaluate {
        inherit (test) packages references specialArgs;
        modules = test.nodes // test.containers;
      };
      common = {
        inherit (test)
          name
          timeout
          testScript
          file
          line
          ;
      };
    in
    {
      outline = common // {
        inherit (test) plain;
        nodes = all.outlines;
      };
      built = common // {
        inherit (test) pythonPath;
        nodes = all.facts;
      };
    };
}
