# From what a test's file or a flake gives to the test's definition, whatever calls it: nothing in the user's file changes.
# The callers of nixpkgs (make-test-python.nix, testing-python.nix, runTest, nixosTest, ...) are replaced by `capture` where
# the file, what it imports, or its flake asks for them.
{
  lib,
  nixpkgs,
  pkgs,
  system,
  reference,
}:

let
  # What a caller gives: it may be called again, and built with other arguments. `packages` are those of the caller, null
  # where it has none; `arguments` what it was called with, `modules` what it was extended with.
  captured =
    test:
    let
      self = test // {
        _type = "nspawn-test";
        # As evalTest and runTest give it; what lists tests looks for it.
        test = self;
        config = {
          result = self;
          test = self;
        };
        # Some look whether a check is a package (flake-parts, flake-utils). It is never built.
        type = "derivation";
        name = "nixos-test";
        outPath = "/nixos-test";
        drvPath = "/nixos-test.drv";
        inherit system;
        __functor =
          _: given:
          captured (
            test
            // lib.optionalAttrs (builtins.isAttrs given) {
              arguments = test.arguments // removeAttrs given [ "pkgs" ];
              packages = given.pkgs or test.packages;
            }
          );
        override = _: self;
        overrideAttrs = _: self;
        extend =
          { modules, ... }:
          captured (test // { modules = test.modules ++ modules; });
        extendNixOS = { module, ... }: captured (test // { modules = test.modules ++ [ { extraBaseModules = module; } ]; });
      };
    in
    self;
  capture =
    packages: definition:
    captured {
      inherit packages definition;
      arguments = { };
      modules = [ ];
    };
  isCaptured = value: builtins.isAttrs value && value._type or "" == "nspawn-test";

  callersOf = packages: {
    evalTest = capture packages;
    makeTest = capture packages;
    makeTest' = capture packages;
    makeTestPython = capture packages;
    nixosTest = capture packages;
    runNixOSTest = capture packages;
    runTest = capture packages;
    simpleTest = capture packages;
  };

  withCallers = packages: withCallersOf packages packages;
  # `whose` are the packages that those who are called say: null for what all nodes have anyway.
  withCallersOf =
    whose: packages:
    let
      callers = callersOf whose;
      ours = {
        inherit (callers) nixosTest;
        testers = packages.testers or { } // callers;
        callPackage = file: packages.newScope ours (if isFile file then importScoped file else file);
        extend = overlay: withCallers (packages.extend overlay);
        appendOverlays = overlays: withCallers (packages.appendOverlays overlays);
        lib = withRunTest packages.lib;
      };
    in
    if packages ? nspawnPackages then packages else packages // ours // { nspawnPackages = packages; };
  withRunTest = library: library // {
    nixos = library.nixos or { } // callersOf null;
  };
  # Systems are built from a package set as it was.
  withoutCallers = packages: packages.nspawnPackages or packages;

  isFile = value: builtins.isPath value || builtins.isString value;
  ends = suffix: path: lib.hasSuffix suffix path || lib.hasSuffix "${suffix}/default.nix" path;
  isNixpkgs =
    path:
    path == toString nixpkgs
    || path == "${toString nixpkgs}/default.nix"
    || (lib.hasSuffix "-source" path && builtins.pathExists (path + "/nixos/lib/eval-config.nix"));

  # `import` in the user's files.
  importScoped =
    file:
    let
      path = toString file;
      # Of nixpkgs itself only its tests are a user's files.
      ownTests = "${toString nixpkgs}/nixos/tests/";
    in
    if lib.hasSuffix "/make-test-python.nix" path || path == "${ownTests}make-test.nix" then
      capture null
    else if lib.hasSuffix "/nixos/lib/testing-python.nix" path || lib.hasSuffix "/nixos/lib/testing.nix" path then
      given: callersOf (given.pkgs or null)
    else if ends "/nixos/lib" path then
      given: (if builtins.pathExists "${lib.removeSuffix "/default.nix" path}/default.nix" then import file given else { }) // callersOf null
    else if isNixpkgs path then
      given: withCallers (import file given)
    else if lib.hasPrefix "${toString nixpkgs}/" path && !lib.hasPrefix ownTests path then
      import file
    else
      builtins.scopedImport scope file;
  scope = {
    import = importScoped;
    __findFile = path: name: if name == "nixpkgs" then nixpkgs else if lib.hasPrefix "nixpkgs/" name then nixpkgs + lib.removePrefix "nixpkgs" name else builtins.findFile path name;
  };

  # What a caller calls a test with.
  argumentsOf =
    test:
    let
      packages = if test.packages == null then pkgs else test.packages;
      hostPkgs = withCallersOf test.packages packages;
    in
    callersOf test.packages
    // {
      inherit hostPkgs nixpkgs system;
      inherit (packages) lib;
      pkgs = hostPkgs;
      config = { };
      # Of nixpkgs' list of all its tests.
      callTest = each: each.test;
    }
    // test.arguments;

  # builtins.functionArgs does not tell `{ pkgs }: ...` from `{ pkgs, ... }: ...`, nor `{ }: ...` from `all: ...`.
  takesMore =
    function:
    let
      text = builtins.toXML function;
      has = word: builtins.length (builtins.split word text) > 1;
    in
    has "<varpat " || has "ellipsis=\"1\"";

  # The same, and as callPackage does it: what a file asks for beside that, of the package set.
  argumentsFor =
    test: function:
    let
      given = argumentsOf test;
      wanted = lib.filterAttrs (_: optional: !optional) (builtins.functionArgs function);
    in
    lib.optionalAttrs (!test.isCalled) (builtins.intersectAttrs wanted given.pkgs) // given;

  # A function that takes what a caller gives; any other is a module, of runTest.
  isCallable =
    test: function:
    let
      wanted = builtins.functionArgs function;
      given = argumentsFor test function;
    in
    lib.all (name: wanted.${name} || builtins.hasAttr name given) (builtins.attrNames wanted)
    && (wanted.config or true)
    && !(wanted ? options);
  # Call a function with what it takes of some arguments.
  callWith =
    arguments: function:
    function (
      if takesMore function then arguments else builtins.intersectAttrs (builtins.functionArgs function) arguments
    );

  # From what a file or a flake gives to a definition, and what callers said of it on the way.
  resolve =
    test: value:
    if isCaptured value then
      resolve {
        packages = if value.packages == null then test.packages else withoutCallers value.packages;
        arguments = test.arguments // value.arguments;
        modules = test.modules ++ value.modules;
        isCalled = true;
      } value.definition
    else if isFile value then
      resolve test (importScoped value)
    else if builtins.isFunction value && isCallable test value then
      resolve test (callWith (argumentsFor test value) value)
    else
      test // { definition = value; };

  # A flake's attribute: its outputs once more, from inputs whose nixpkgs has our callers.
  fromFlake =
    { ref, attribute }:
    let
      flake = builtins.getFlake ref;
      inputs = lib.mapAttrs (
        _: input:
        if input ? legacyPackages then
          input
          // {
            legacyPackages = lib.mapAttrs (_: withCallers) input.legacyPackages;
            lib = withRunTest (input.lib or { });
          }
        else
          input
      ) flake.inputs;
      file = builtins.scopedImport scope (flake.outPath + "/flake.nix");
      outputs = file.outputs (inputs // { self = flake // outputs // { inherit (flake) outPath; inherit inputs; }; });
      path = lib.splitString "." attribute;
      missing = throw "the flake ${ref} has no attribute ${attribute}";
    in
    lib.attrByPath path (lib.attrByPath ([ "checks" system ] ++ path) missing outputs) outputs;

  found = resolve {
    packages = null;
    arguments = { };
    modules = [ ];
    # Whether it is what a caller of nixpkgs was called with.
    isCalled = false;
  } (if reference ? flake then fromFlake reference.flake else importScoped (/. + reference.path));

  # nixpkgs' own list has hundreds.
  noTest =
    name: names:
    let
      alike = lib.filter (lib.hasPrefix (builtins.substring 0 3 name)) names;
      shown =
        if lib.length names <= 20 then
          lib.concatStringsSep ", " names
        else
          "${toString (lib.length names)}, of which begin like it: ${if alike == [ ] then "none" else lib.concatStringsSep ", " alike}";
    in
    throw "this file has no test ${name}; it has ${shown}";

  # One of several tests in a file, by its name.
  chosen =
    if reference ? attribute then
      resolve found (
        lib.attrByPath (lib.splitString "." reference.attribute)
          (noTest reference.attribute (lib.attrNames found.definition))
          found.definition
      )
    else
      found;
in
{
  # `definition` is what a caller was given; `packages`, `arguments` and `modules` are what it said.
  test = chosen;
  # What a module of it may ask for, beside its nodes.
  arguments = argumentsOf chosen;
  inherit
    callWith
    isCaptured
    takesMore
    withoutCallers
    ;
}
