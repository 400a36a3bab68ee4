# What is asked for is a JSON file, see nixbuild/request.py; nothing of it is ever spliced into Nix text.
# `nodes`: all nodes of a topology, evaluated together: a derivation that holds one JSON of their systems and facts.
# `test`: the same of an existing NixOS test, and its script. `outline`: what of it can be known before anything is built; it
# is never built, its text is read from the derivation.
{ request }:

let
  data = builtins.fromJSON (builtins.readFile request);
  inherit (data) system;

  nixpkgs = if data.nixpkgs ? path then /. + data.nixpkgs.path else (builtins.getFlake data.nixpkgs.flake).outPath;
  pkgs = import nixpkgs {
    inherit system;
    config = { };
    overlays = [ ];
  };
  inherit (pkgs) lib;

  json = name: value: pkgs.writeText "nspawn-${name}.json" (builtins.toJSON value);

  evaluateAll = import ./nodes.nix {
    inherit
      lib
      nixpkgs
      pkgs
      system
      ;
  };

  test =
    (import ./entries.nix {
      inherit
        lib
        nixpkgs
        pkgs
        system
        ;
    }).test
      {
        reference = data.test;
        inherit (data) interactive python;
      };

  # What a flake reference leads to: an attribute as it is spelled, else of this system's packages.
  fromFlake =
    { ref, attribute }:
    let
      flake = builtins.getFlake ref;
      path = lib.splitString "." attribute;
      inSystem = lib.attrByPath (lib.take 1 path ++ [ system ] ++ lib.drop 1 path) null flake;
      missing = throw "the flake ${ref} has no attribute ${attribute}; it has ${lib.concatStringsSep ", " (builtins.attrNames flake.outputs)}";
    in
    lib.attrByPath path (if inSystem == null then missing else inSystem) flake;

  # A config as the user gave it, as a value: a path stays one, so that its file is named in errors.
  valueOf =
    config:
    if config ? path then
      /. + config.path
    else
      fromFlake config.flake;
in
{
  nodes =
    json "nodes"
      (evaluateAll {
        inherit (data) peers;
        nodes = lib.mapAttrs (_: node: node // { values = map valueOf node.configs; }) data.nodes;
      }).facts;

  test = json "test" test.built;

  outline = derivation {
    name = "nspawn-outline";
    inherit system;
    builder = "none";
    text = builtins.unsafeDiscardStringContext (builtins.toJSON test.outline);
  };
}
