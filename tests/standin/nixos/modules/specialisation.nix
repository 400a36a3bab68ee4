{
  config,
  extendModules,
  lib,
  ...
}:

{
  options.specialisation = lib.mkOption {
    type = lib.types.attrsOf (
      lib.types.submodule {
        options.configuration = lib.mkOption {
          type = lib.types.deferredModule;
          default = { };
          description = "What the system is beside what it is without.";
        };
      }
    );
    default = { };
    description = "Other systems that this one can be switched to.";
  };

  config.system.specialisations = lib.mapAttrs (
    _: each:
    (extendModules {
      modules = [
        each.configuration
        { specialisation = lib.mkForce { }; }
      ];
    }).config.system.build.toplevel
  ) config.specialisation;
}
