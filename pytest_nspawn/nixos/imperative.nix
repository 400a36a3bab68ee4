# The system of a container that the command nixos-nspawn makes. The request is a JSON file: name, config, nixpkgs.
{ request }:
let
  data = builtins.fromJSON (builtins.readFile request);
  nixpkgs = if data.nixpkgs == null then <nixpkgs> else /. + data.nixpkgs;
in
(import (nixpkgs + "/nixos/lib/eval-config.nix") {
  system = builtins.currentSystem;
  modules = [
    ./modules/container.nix
    (/. + data.config)
    (
      { lib, ... }:
      {
        _file = "nixos-nspawn ${data.name}";
        networking.hostName = lib.mkDefault data.name;
      }
    )
  ];
}).config.system.build.toplevel
