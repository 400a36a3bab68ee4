# An existing NixOS test: its modules evaluated as runTest does, but for its nodes, which are given as modules.
{
  lib,
  nixpkgs,
  pkgs,
  system,
  reference,
  # Whether what is said of `interactive` holds.
  interactive,
  # The Python that runs the script, as the names of its package sets have it ("311"); null for nixpkgs' own.
  python ? null,
  # The test's nodes, evaluated: what its modules and its script see of them.
  configs,
}:

let
  callers = import ./callers.nix {
    inherit
      lib
      nixpkgs
      pkgs
      system
      reference
      ;
  };
  inherit (callers) test takesMore withoutCallers;

  # What a module of a test may ask for.
  moduleArguments = {
    inherit (configs) nodes containers allMachines;
  }
  // removeAttrs callers.arguments [
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
      value = test.definition;
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
    else if builtins.isAttrs value && lib.any callers.isCaptured (lib.attrValues value) then
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
  # One text from several definitions, in their order (mkBefore, mkAfter); some may be functions of the nodes.
  script = lib.mkOptionType {
    name = "script";
    description = "script";
    check = value: builtins.isString value || builtins.isFunction value;
    merge =
      _: definitions:
      let
        values = map (each: each.value) definitions;
        text = given: value: if builtins.isFunction value then callers.callWith given value else value;
      in
      if lib.length values == 1 then lib.head values else given: lib.concatMapStringsSep "\n" (text given) values;
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
      extraPythonPackages = option anything (_: [ ]);
      meta = option anything { };
      testScript = required script;
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
  ++ test.modules;
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
  pythonPackages =
    let
      inherit (moduleArguments) hostPkgs;
      # Compiled modules are those of one Python. Of one that is gone from nixpkgs, an alias throws.
      own = builtins.tryEval (hostPkgs."python${python}Packages" or null);
    in
    if python != null && own.success && own.value != null then own.value else hostPkgs.python3.pkgs;
  extraPythonPackages = evaluated.extraPythonPackages pythonPackages;

  given = evaluated.testScript;
  testScript = if builtins.isFunction given then callers.callWith configs given else given;
in
{
  inherit testScript;
  # What the script names of the store.
  references = lib.optional (builtins.hasContext testScript) (pkgs.writeText "testScript" testScript);
  inherit (evaluated) name;
  # Where Python finds what the script imports beside the standard library, and what that needs.
  pythonPath = lib.optionals (extraPythonPackages != [ ]) (
    map (package: "${package}/${pythonPackages.python.sitePackages}") (
      lib.filter (package: package != pythonPackages.python) (pythonPackages.requiredPythonModules extraPythonPackages)
    )
  );
  timeout = if evaluated.globalTimeout == null then evaluated.meta.timeout or null else evaluated.globalTimeout;
  specialArgs = evaluated.node.specialArgs;
  # Null where the nodes' own options say.
  packages = if evaluated.node.pkgs == null then test.packages else withoutCallers evaluated.node.pkgs;
  # Whether a node is what stands under its name: nothing is said of all, and the script needs nothing else.
  plain =
    evaluated.node.pkgs == null
    && test.packages == null
    && test.modules == [ ]
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
