# Option types of the modules. Only `lib` is needed, of any version.
{ lib }:
let
  inherit (lib) isAttrs isFunction mkOptionType;

  isModule =
    value: isAttrs value || isFunction value || builtins.isPath value || lib.hasPrefix "/" (toString value);

  # Keeps the file that a definition is from, for the errors about it.
  located = definition: {
    _file = definition.file;
    imports = [ definition.value ];
  };
in
rec {
  # lib.literalExpression came with 21.11.
  literal = lib.literalExpression or lib.literalExample;

  # Settings that are given to a submodule later: all definitions of it, as one module.
  # Newer libraries have types.deferredModule.
  settingsFor =
    description:
    mkOptionType {
      name = "settings";
      inherit description;
      check = isModule;
      merge =
        _: definitions:
        { ... }:
        {
          imports = map located definitions;
        };
    };

  # A NixOS configuration: all definitions of it, evaluated by `evaluate`, which is given a list of modules.
  systemBy =
    evaluate:
    mkOptionType {
      name = "NixOS configuration";
      description = "NixOS module";
      check = isModule;
      merge = _: definitions: evaluate (map located definitions);
    };
}
