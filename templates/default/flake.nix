{
  description = "A NixOS configuration, and tests of it";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    pytest-nspawn = {
      url = "github:pytest-nspawn/pytest-nspawn";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    { nixpkgs, pytest-nspawn, ... }:
    let
      system = "x86_64-linux";
    in
    {
      nixosModules.web = import ./web.nix;

      # `nix flake check` runs them, `nix build .#checks.x86_64-linux.test_web` one of them.
      checks.${system} = pytest-nspawn.lib.mkChecks {
        pkgs = nixpkgs.legacyPackages.${system};
        tests = ./tests;
        nodes.web = ./web.nix;
      };
    };
}
