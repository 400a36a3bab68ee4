# An existing NixOS test, whatever calls it, as its definition: nothing in the user's file changes.
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
  # What a caller gives: it may be called again, and built with other arguments, and stays the same.
  capture = definition: {
    inherit definition;
    _type = "nspawn-test";
    __functor = self: _: self;
    override = _: capture definition;
    overrideAttrs = _: capture definition;
    extend = _: capture definition;
  };
  isCaptured = value: builtins.isAttrs value && value._type or "" == "nspawn-test";

  callers = {
    evalTest = capture;
    makeTest = capture;
    makeTest' = capture;
    makeTestPython = capture;
    nixosTest = capture;
    runNixOSTest = capture;
    runTest = capture;
    simpleTest = capture;
  };

  withCallers =
    packages:
    let
      ours = {
        inherit (callers) nixosTest;
        testers = packages.testers or { } // callers;
        callPackage = file: packages.newScope ours (if isFile file then importScoped file else file);
        lib = packages.lib // {
          nixos = packages.lib.nixos or { } // callers;
        };
      };
    in
    packages // ours;

  isFile = value: builtins.isPath value || builtins.isString value;
  ends = suffix: path: lib.hasSuffix suffix path || lib.hasSuffix "${suffix}/default.nix" path;

  # `import` in the user's files.
  importScoped =
    file:
    let
      path = toString file;
    in
    if lib.hasSuffix "/make-test-python.nix" path then
      capture
    else if lib.hasSuffix "/nixos/lib/testing-python.nix" path then
      _: callers
    else if ends "/nixos/lib" path then
      arguments: import file arguments // callers
    else if path == toString nixpkgs || path == "${toString nixpkgs}/default.nix" || lib.hasSuffix "-source" path && builtins.pathExists (path + "/nixos/lib/eval-config.nix") then
      arguments: withCallers (import file arguments)
    else if lib.hasPrefix "${toString nixpkgs}/" path && !lib.hasPrefix "${toString nixpkgs}/nixos/tests/" path then
      import file
    else
      builtins.scopedImport scope file;
  scope = {
    import = importScoped;
    __findFile = path: name: if name == "nixpkgs" then nixpkgs else if lib.hasPrefix "nixpkgs/" name then nixpkgs + lib.removePrefix "nixpkgs" name else builtins.findFile path name;
  };

  arguments = {
    inherit lib nixpkgs system;
    pkgs = withCallers pkgs;
    hostPkgs = withCallers pkgs;
    config = { };
  }
  // callers;

  # Whether a function takes no more than what a caller gives; else it is a module, of runTest.
  isCallable =
    function:
    let
      wanted = builtins.functionArgs function;
    in
    lib.all (name: wanted.${name} || builtins.hasAttr name arguments) (builtins.attrNames wanted) && !(wanted ? options);

  definitionOf =
    value:
    if isCaptured value then
      definitionOf value.definition
    else if isFile value then
      definitionOf (importScoped value)
    else if builtins.isFunction value && isCallable value then
      let
        wanted = builtins.functionArgs value;
      in
      # A function of `{ ... }` or of a name gets everything.
      definitionOf (value (if wanted == { } then arguments else builtins.intersectAttrs wanted arguments))
    else
      value;

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
            lib = input.lib or { } // {
              nixos = input.lib.nixos or { } // callers;
            };
          }
        else
          input
      ) flake.inputs;
      file = builtins.scopedImport scope (flake.outPath + "/flake.nix");
      outputs = file.outputs (inputs // { self = flake // outputs // { inherit (flake) outPath inputs; }; });
      path = lib.splitString "." attribute;
      missing = throw "the flake ${ref} has no attribute ${attribute}";
    in
    lib.attrByPath path (lib.attrByPath ([ "checks" system ] ++ path) missing outputs) outputs;

  definition = definitionOf (
    if reference ? flake then fromFlake reference.flake else importScoped (/. + reference.path)
  );

  # One of several tests in a file, by its name.
  chosen =
    if reference ? attribute then
      definitionOf (
        lib.attrByPath (lib.splitString "." reference.attribute)
          (throw "this file has no test ${reference.attribute}; it has ${lib.concatStringsSep ", " (lib.attrNames definition)}")
          definition
      )
    else
      definition;

  isDefinition = value: builtins.isFunction value || (builtins.isAttrs value && (value ? testScript || value ? imports || value ? nodes));
  checked =
    if isDefinition chosen then
      chosen
    else if builtins.isAttrs chosen && lib.any isCaptured (lib.attrValues chosen) then
      throw "this file holds several tests (${lib.concatStringsSep ", " (lib.attrNames chosen)}): name one, as in FILE.nix::NAME"
    else if builtins.isAttrs chosen && (chosen.type or "") == "derivation" then
      throw "this is a built derivation: its caller is none of nixpkgs' own, so that its nodes cannot be seen"
    else
      throw "this is no NixOS test: it has neither nodes nor a testScript";

  # Modules that are merged later, by the system that they are of.
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
  option =
    type: default:
    lib.mkOption {
      inherit type default;
      description = "As in a NixOS test.";
    };
  optionsModule = {
    options = {
      name = option lib.types.str "unnamed";
      nodes = option (lib.types.attrsOf deferred) { };
      containers = option (lib.types.attrsOf deferred) { };
      machine = option (lib.types.nullOr deferred) null;
      defaults = option deferred { };
      extraBaseModules = option deferred { };
      node = option anything { };
      hostPkgs = option anything pkgs;
      globalTimeout = option anything null;
      meta = option anything { };
      testScript = option anything "";
      passthru = option anything { };
    };
    # What else a test may say is about its virtual machines.
    config._module.check = false;
  };

  evaluated =
    (lib.evalModules {
      modules = [
        optionsModule
        checked
      ];
      specialArgs = removeAttrs arguments [
        "config"
        "lib"
      ];
    }).config;

  # The old attribute `machine` is a node of that name.
  nodes = evaluated.nodes // evaluated.containers // lib.optionalAttrs (evaluated.machine != null) { inherit (evaluated) machine; };
  position =
    if builtins.isAttrs checked && checked ? testScript then builtins.unsafeGetAttrPos "testScript" checked else null;
in
{
  inherit (evaluated) name testScript;
  timeout = if evaluated.globalTimeout == null then evaluated.meta.timeout or null else evaluated.globalTimeout;
  specialArgs = evaluated.node.specialArgs or { };
  nodes = lib.mapAttrs (_: module: [
    module
    evaluated.defaults
    evaluated.extraBaseModules
  ]) nodes;
  file = if position == null then null else position.file;
  line = if position == null then null else position.line;
}
