# A package set of the given nixpkgs whose programs are Debian's: the tree's own lib, builders and functions,
# a stdenv of Debian's tools, and an overlay that puts Debian's programs where NixOS modules look for them.
# What neither of them has is built from source by nixpkgs, so it throws as soon as it asks for its source.
{ settings, wrapper }:

{ system ? settings.system
, localSystem ? { inherit system; }
, crossSystem ? null
, config ? { }
, overlays ? [ ]
, crossOverlays ? [ ]
}:

let
  tree = /. + settings.nixpkgs;
  lib = import (tree + "/lib");
  debian = import ./debian.nix { inherit settings lib; };

  noSource = args:
    let
      what = args.url or (lib.head (args.urls or [ "(no address)" ]));
    in
    throw "the package set over Debian's programs does not have this package: its source ${toString what} would be needed. See README.md in tests/nixos/debian.";

  # Older trees read whole files by `read -N 0`, which newer bashes take at its word.
  setup = builtins.toFile "setup.sh" (lib.replaceStrings [ "read -r -N 0 " ] [ "read -r -d '' " ] (builtins.readFile (tree + "/pkgs/stdenv/generic/setup.sh")));

  stdenv = platform: import (tree + "/pkgs/stdenv/generic") {
    setupScript = setup;
    name = "stdenv-debian";
    inherit config;
    inherit (debian) cc;
    buildPlatform = platform;
    hostPlatform = platform;
    targetPlatform = platform;
    shell = "${debian.packages.bash}/bin/bash";
    initialPath = map (name: debian.packages.${name}) debian.initialPath;
    fetchurlBoot = noSource;
    preHook = ''
      export CC=cc LD=ld AR=ar STRIP=strip NIX_ENFORCE_PURITY=
    '';
  };
in
import (tree + "/pkgs/top-level") {
  inherit localSystem crossSystem config crossOverlays;
  overlays = [ (import ./overlay.nix { inherit debian noSource wrapper; }) ] ++ overlays;
  stdenvStages = { localSystem, config, overlays, ... }: [
    ({ }: { inherit config overlays; stdenv = stdenv localSystem; })
  ];
}
