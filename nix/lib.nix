# What other flakes use: mkTest, mkChecks. docs/flake.md tells of their arguments.
{ nixpkgs }:

let
  inherit (nixpkgs) lib;

  # A path as a store path of its own: its test is run again when it changes, not when anything else of its flake does.
  alone = path: if builtins.isPath path then builtins.path { inherit path; name = nameOf path; } else path;
  nameOf = path: lib.removePrefix "-" (builtins.replaceStrings [ "/" ] [ "" ] (baseNameOf path));
  isDirectory = path: builtins.isAttrs path || builtins.pathExists "${toString path}/.";

  # A node is a module, as in a NixOS test; or a list of them, one of which may be a system.
  modulesOf = lib.mapAttrs (_: node: if builtins.isList node then node else [ node ]);

  mkTest =
    {
      system ? throw "mkTest: give `pkgs`, or the `system` for nixpkgs of pytest-nspawn itself",
      pkgs ? nixpkgs.legacyPackages.${system},
      # Whose nixos/lib/eval-config.nix makes the systems.
      nixos ? pkgs.path,
      name ? "nspawn",
      nodes ? { },
      specialArgs ? { },
      tests ? null,
      nixosTests ? [ ],
      sources ? [ ],
      arguments ? [ ],
      packages ? [ ],
      pythonPackages ? _: [ ],
      python ? import ./environment.nix { inherit pkgs; } pythonPackages,
      # The one test module of the directory `tests` that is run, for mkChecks: a change of another is none of this test.
      module ? null,
    }:
    let
      entries = import ../pytest_nspawn/nixos/entries.nix {
        inherit (pkgs) lib;
        inherit pkgs;
        nixpkgs = nixos;
        inherit (pkgs.stdenv.hostPlatform) system;
      };
      named = map (path: lib.nameValuePair (nameOf path) path);
      testsName = if isDirectory tests then "tests" else nameOf tests;
      given = lib.optionalAttrs (tests != null) {
        ${testsName} = if module == null then tests else withoutOthers module tests;
      };

      run = import ./run.nix { inherit pkgs python; } {
        inherit packages;
        files = lib.mapAttrs (_: alone) (lib.listToAttrs (named sources ++ named nixosTests) // given);
        manifest =
          entries.nodes {
            inherit specialArgs;
            modules = modulesOf nodes;
          }
          // lib.listToAttrs (map (path: lib.nameValuePair (nameOf path) (existing entries path)) nixosTests);
        arguments =
          arguments
          ++ map (name: if module == null then name else "${name}/${module}") (lib.attrNames given)
          ++ map nameOf nixosTests;
      };
      build = import ./build.nix { inherit pkgs; };
    in
    build {
      inherit name run;
      report = false;
    }
    // {
      report = build {
        inherit run;
        name = "${name}-report";
        report = true;
      };
      vm = import ./vm.nix { inherit pkgs; } {
        inherit run;
        name = "${name}-vm";
      };
    };

  # An existing NixOS test, which stands where pytest runs: a path in the caller's flake would change with all of that.
  existing =
    entries: path:
    let
      entry = (entries.test { reference.path = toString path; }).built;
    in
    entry // { file = if entry.file == toString path then nameOf path else entry.file; };

  isTest = path: builtins.match "test_.*\\.py|.*_test\\.py" (baseNameOf path) != null;

  # A directory with what is beside its test modules, and one of them.
  withoutOthers =
    module: directory:
    builtins.path {
      path = directory;
      name = "tests";
      filter = path: _: !isTest path || path == "${toString directory}/${module}";
    };

  # The test modules of a directory, as paths from there.
  modulesIn =
    directory:
    let
      below =
        prefix:
        let
          entries = builtins.readDir (directory + "/${prefix}");
        in
        lib.concatMap (
          name:
          let
            path = prefix + name;
          in
          if entries.${name} == "directory" then
            below "${path}/"
          else if isTest path then
            [ path ]
          else
            [ ]
        ) (lib.attrNames entries);
    in
    below "";

  mkChecks =
    {
      name ? "nspawn",
      tests,
      # As for mkTest, or a function from the path of a test module to that.
      nodes ? { },
      # Paths of test modules that are left out.
      without ? [ ],
      ...
    }@arguments:
    let
      check =
        module:
        mkTest (
          removeAttrs arguments [ "without" ]
          // {
            name = "${name}-${attributeOf module}";
            nodes = if builtins.isFunction nodes then nodes module else nodes;
            inherit module;
          }
        );
      attributeOf =
        module: builtins.replaceStrings [ "/" ] [ "-" ] (lib.removeSuffix ".py" module);
      modules = lib.filter (module: !lib.elem module without) (modulesIn tests);
    in
    lib.listToAttrs (map (module: lib.nameValuePair (attributeOf module) (check module)) modules);
in
{
  inherit mkChecks mkTest;
}
