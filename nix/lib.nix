# What other flakes use: mkTest, mkChecks.
{ nixpkgs, self }:

let
  inherit (nixpkgs) lib;

  # A path of the caller's as a store path of its own: a test is run again when it changes, not when its flake does.
  alone = path: if builtins.isPath path then builtins.path { inherit path; name = baseNameOf path; } else path;
  isDirectory = path: builtins.pathExists "${toString path}/.";

  # A node is what a NixOS test has: a module; or a list of modules, or a system with further modules.
  modulesOf = nodes: lib.mapAttrs (_: node: if builtins.isList node then node else [ node ]) nodes;

  mkTest =
    {
      # The package set to build with, or the system for this flake's own nixpkgs.
      pkgs ? nixpkgs.legacyPackages.${system},
      system ? throw "mkTest: say `pkgs`, or `system`",
      name ? "nspawn-test",
      # Names of nodes, as in @pytest.mark.nodes(web="web"), and their configurations.
      nodes ? { },
      specialArgs ? { },
      # What pytest runs: a directory, or a file.
      tests ? [ ],
      # Files of existing NixOS tests, which pytest runs too.
      nixosTests ? [ ],
      # Further packages for the tests, of the Python that runs them, and programs on their PATH.
      pythonPackages ? _: [ ],
      packages ? [ ],
      arguments ? [ ],
      python ? import ./environment.nix { inherit pkgs; } pythonPackages,
    }:
    let
      entries = import ../pytest_nspawn/nixos/entries.nix {
        inherit (pkgs) lib;
        inherit pkgs;
        nixpkgs = pkgs.path;
        inherit (pkgs.stdenv.hostPlatform) system;
      };
      tested = lib.listToAttrs (
        map (file: lib.nameValuePair (baseNameOf file) (entries.test { path = toString file; })) nixosTests
      );
      given = {
        inherit name packages;
        manifest =
          entries.nodes {
            inherit specialArgs;
            modules = modulesOf nodes;
          }
          // tested;
        files =
          lib.listToAttrs (map (file: lib.nameValuePair (baseNameOf file) (alone file)) nixosTests)
          // lib.optionalAttrs (tests != [ ]) (
            if isDirectory tests then { tests = alone tests; } else { ${baseNameOf tests} = alone tests; }
          );
        arguments = arguments ++ map baseNameOf nixosTests ++ lib.optional (tests != [ ]) (if isDirectory tests then "tests" else baseNameOf tests);
      };
      run = import ./derivation.nix { inherit (pkgs) lib; inherit pkgs python; };
    in
    run (given // { report = false; })
    // {
      report = run (given // { report = true; });
    };
in
{
  inherit mkTest;
}
