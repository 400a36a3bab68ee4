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
    specialArgs: modules:
    let
      numbers = lib.listToAttrs (lib.imap1 (number: name: lib.nameValuePair name number) (lib.attrNames modules));
    in
    evaluateAll {
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
  nodes = { specialArgs, modules }: (evaluate specialArgs modules).facts;

  # `outline` needs nothing built, and none of the systems evaluated to its end.
  test =
    reference:
    let
      test = import ./test.nix {
        inherit
          lib
          nixpkgs
          pkgs
          reference
          system
          ;
      };
      all = evaluate test.specialArgs test.nodes;
      script = test.testScript;
      common = {
        inherit (test)
          name
          timeout
          file
          line
          ;
        testScript = if builtins.isFunction script then script { nodes = all.configs; } else script;
      };
    in
    {
      outline = common // {
        nodes = all.outlines;
      };
      built = common // {
        nodes = all.facts;
      };
    };
}
