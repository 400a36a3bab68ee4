# An existing NixOS test, whatever calls it, as its definition: nothing in the user's file changes.
# The callers of nixpkgs (make-test-python.nix, testing-python.nix, runTest, nixosTest, ...) are replaced by `capture` where
# the file, what it imports, or its flake asks for them.
{
  lib,
  nixpkgs,
  pkgs,
  system,
  reference,
  # Whether what is said of `interactive` holds.
  interactive,
  # The test's nodes, evaluated: what its modules and its script see of them.
  configs,
}:

let
  # What a caller gives: it may be called again, and built with other arguments. `packages` are those of the caller, null
  # where it has none; `arguments` what it was called with, `modules` what it was extended with.
  captured = test: test // {
    _type = "nspawn-test";
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
    override = _: captured test;
    overrideAttrs = _: captured test;
    extend =
      { modules, ... }:
      captured (test // { modules = test.modules ++ modules; });
    extendNixOS = { module, ... }: captured (test // { modules = test.modules ++ [ { extraBaseModules = module; } ]; });
  };
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
      given: import file given // callersOf null
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
    in
    callersOf test.packages
    // {
      inherit nixpkgs system;
      inherit (packages) lib;
      pkgs = withCallersOf test.packages packages;
      hostPkgs = withCallersOf test.packages packages;
      config = { };
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

  # A function that takes what a caller gives; any other is a module, of runTest.
  isCallable =
    test: function:
    let
      wanted = builtins.functionArgs function;
      given = argumentsOf test;
    in
    lib.all (name: wanted.${name} || builtins.hasAttr name given) (builtins.attrNames wanted)
    && (wanted.config or true)
    && !(wanted ? options);
  call =
    test: function:
    function (
      if takesMore function then argumentsOf test else builtins.intersectAttrs (builtins.functionArgs function) (argumentsOf test)
    );

  # From what a file or a flake gives to a definition, and what callers said of it on the way.
  resolve =
    test: value:
    if isCaptured value then
      resolve {
        packages = if value.packages == null then test.packages else withoutCallers value.packages;
        arguments = test.arguments // value.arguments;
        modules = test.modules ++ value.modules;
      } value.definition
    else if isFile value then
      resolve test (importScoped value)
    else if builtins.isFunction value && isCallable test value then
      resolve test (call test value)
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
  } (if reference ? flake then fromFlake reference.flake else importScoped (/. + reference.path));

  # One of several tests in a file, by its name.
  chosen =
    if reference ? attribute then
      resolve found (
        lib.attrByPath (lib.splitString "." reference.attribute)
          (throw "this file has no test ${reference.attribute}; it has ${lib.concatStringsSep ", " (lib.attrNames found.definition)}")
          found.definition
      )
    else
      found;

  # What a module of a test may ask for.
  moduleArguments = {
    inherit (configs) nodes containers allMachines;
  }
  // removeAttrs (argumentsOf chosen) [
    "config"
    "lib"
  ];
  missing =
    function:
    lib.filter (
      name: !(builtins.functionArgs function).${name} && !(moduleArguments ? ${name} || lib.elem name [ "config" "lib" "options" ])
    ) (builtins.attrNames (builtins.functionArgs function));

  onlyCalled =
    names:
    throw "this file is a function of ${lib.concatStringsSep ", " names}, which only what calls it can give: name that file, or a flake's check";

  checked =
    let
      value = chosen.definition;
    in
    if builtins.isFunction value then
      if !takesMore value && missing value != [ ] then
        onlyCalled (missing value)
      else
        {
          imports = [ value ];
          # A module of it may have them yet.
          _module.args = lib.genAttrs (missing value) (name: lib.mkOptionDefault (onlyCalled [ name ]));
        }
    else if builtins.isAttrs value && lib.any (name: value ? ${name}) [ "testScript" "imports" "nodes" "containers" "machine" ] then
      value
    else if builtins.isAttrs value && lib.any isCaptured (lib.attrValues value) then
      throw "this file holds several tests (${lib.concatStringsSep ", " (lib.attrNames value)}): name one, as in FILE.nix::NAME"
    else if builtins.isAttrs value && (value.type or "") == "derivation" then
      throw "this is a built derivation: its caller is none of nixpkgs' own, so that its nodes cannot be seen"
    else
      throw "this is no NixOS test: it has neither nodes nor a testScript";

  # Modules that are merged later, by the system, or the test, that they are of.
  deferred = lib.mkOptionType {
    name = "module";
    description = "module";
    merge = _: definitions: {
      imports = map (each: {
        _file = each.file;
        imports = [ each.value ];
      }) definitions;
    };
  };
  anything = lib.mkOptionType {
    name = "anything";
    description = "anything";
    merge = _: definitions: (lib.last definitions).value;
  };
  required =
    type:
    lib.mkOption {
      inherit type;
      description = "As in a NixOS test.";
    };
  option = type: default: required type // { inherit default; };
  optionsModule = seen: {
    options = {
      name = option lib.types.str "unnamed";
      nodes = option (lib.types.attrsOf deferred) { } // lib.optionalAttrs seen { apply = _: configs.nodes; };
      containers = option (lib.types.attrsOf deferred) { } // lib.optionalAttrs seen { apply = _: configs.containers; };
      machine = option (lib.types.nullOr deferred) null;
      allMachines = option anything configs.allMachines;
      defaults = option deferred { };
      nodeDefaults = option deferred { };
      containerDefaults = option deferred { };
      extraBaseModules = option deferred { };
      extraBaseNodeModules = option deferred { };
      interactive = option deferred { };
      node.pkgs = option anything null;
      node.pkgsReadOnly = option anything null;
      node.specialArgs = option (lib.types.attrsOf anything) { };
      hostPkgs = option anything moduleArguments.hostPkgs;
      globalTimeout = option anything null;
      meta = option anything { };
      testScript = required anything;
      passthru = option anything { };
    };
    # What else a test may say is about its virtual machines.
    config._module.check = false;
  };

  evaluate =
    modules: seen: specialArgs:
    lib.evalModules {
      modules = [ (optionsModule seen) ] ++ modules;
      specialArgs = moduleArguments // specialArgs;
    };
  # Errors name the file that the test is in.
  ownModules = [
    {
      _file = if position != null then position.file else reference.path or "the flake";
      imports = [ checked ];
    }
  ]
  ++ chosen.modules;
  modules = ownModules ++ lib.optional interactive (evaluate ownModules false { config = evaluated; }).config.interactive;

  # Twice: in `config` a test sees its nodes as systems, of which those are made that they are here as modules.
  evaluated = (evaluate modules true { }).config;
  ofModules = evaluate modules false { config = evaluated; };
  asModules = ofModules.config;

  common = [
    asModules.defaults
    asModules.extraBaseModules
  ];
  nodes =
    # The old attribute `machine` is a node of that name.
    lib.optionalAttrs (asModules.machine != null) { inherit (asModules) machine; } // asModules.nodes;
  both = lib.filter (name: asModules.containers ? ${name}) (lib.attrNames nodes);

  position =
    if builtins.isAttrs checked && checked ? testScript then builtins.unsafeGetAttrPos "testScript" checked else null;
  given = evaluated.testScript;
  testScript =
    if builtins.isFunction given then
      given (if takesMore given then configs else builtins.intersectAttrs (builtins.functionArgs given) configs)
    else
      given;
in
{
  inherit testScript;
  # What the script names of the store.
  references = lib.optional (builtins.hasContext testScript) (pkgs.writeText "testScript" testScript);
  inherit (evaluated) name;
  timeout = if evaluated.globalTimeout == null then evaluated.meta.timeout or null else evaluated.globalTimeout;
  specialArgs = evaluated.node.specialArgs;
  # Null where the nodes' own options say.
  packages = if evaluated.node.pkgs == null then chosen.packages else withoutCallers evaluated.node.pkgs;
  # Whether a node is what stands under its name: nothing is said of all, and the script needs nothing else.
  plain =
    evaluated.node.pkgs == null
    && chosen.packages == null
    && chosen.modules == [ ]
    && evaluated.node.specialArgs == { }
    && !builtins.hasContext testScript
    # A default's priority is 1500 (mkOptionDefault).
    && lib.all (name: ofModules.options.${name}.highestPrio >= 1500) [
      "defaults"
      "nodeDefaults"
      "containerDefaults"
      "extraBaseModules"
      "extraBaseNodeModules"
    ];
  nodes =
    if both == [ ] then
      lib.mapAttrs (_: module: common ++ [ module asModules.nodeDefaults asModules.extraBaseNodeModules ]) nodes
    else
      throw "nodes and containers have the same names: ${lib.concatStringsSep ", " both}";
  containers = lib.mapAttrs (_: module: common ++ [ module asModules.containerDefaults ]) asModules.containers;
  file = if position == null then null else position.file;
  line = if position == null then null else position.line;
}
