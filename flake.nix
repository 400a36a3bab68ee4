{
  description = "Real systemd nodes, booted under systemd-nspawn, from a pytest test";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = lib.filter (system: nixpkgs.legacyPackages ? ${system}) [
        "x86_64-linux"
        "aarch64-linux"
      ];
      # What a file in nix/ makes of each system's packages; nothing where it makes null.
      forSystems =
        file:
        lib.filterAttrs (_: value: value != null) (
          lib.genAttrs systems (
            system:
            import file {
              inherit self;
              pkgs = nixpkgs.legacyPackages.${system};
            }
          )
        );
    in
    {
      nixosModules = {
        default = import ./host.nix;
        host = import ./host.nix;
        container = import ./container.nix;
      };
      overlays.default = import ./nix/overlay.nix;
      lib = import ./nix/lib.nix { inherit nixpkgs; };
      templates.default = {
        path = ./templates/default;
        description = "A NixOS configuration and its pytest, for `nix flake check`";
      };

      packages = forSystems ./nix/packages.nix;
      checks = forSystems ./nix/checks.nix;
      devShells = forSystems ./nix/shells.nix;
      formatter = forSystems ./nix/formatter.nix;
    };
}
