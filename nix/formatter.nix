# `nix fmt`: the formatter of RFC 166, under the name that this nixpkgs has for it.
{ pkgs, ... }:

pkgs.nixfmt-tree or pkgs.nixfmt-rfc-style or null
