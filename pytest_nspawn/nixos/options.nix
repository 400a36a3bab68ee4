# The documentation of every option of the modules, as data: `nix-instantiate --eval --strict --json --arg lib ...`.
#
# A library is enough: no package is evaluated. Texts are the same with any version of it.
{
  lib ? import <nixpkgs/lib>,
}:
let
  documented =
    module:
    lib.optionAttrSetToDocList
      (lib.evalModules {
        modules = [
          module
          {
            _module.args.pkgs = throw "The documentation of an option needs packages: give its default a defaultText.";
          }
        ];
      }).options;

  # Libraries differ in how they write what is no text yet, and in the names of types.
  expression =
    value:
    lib.replaceStrings [ "{  }" "[  ]" ] [ "{ }" "[ ]" ] (
      if value ? _type then value.text else lib.generators.toPretty { } value
    );
  typeName =
    lib.replaceStrings
      [ "(" ")" "submodules" "modules" "strings" "absolute path" ]
      [ "" "" "submodule" "module" "string" "path" ];

  entry = option: {
    inherit (option) name description;
    type = typeName option.type;
    default = if option ? default then expression option.default else null;
    example = if option ? example then expression option.example else null;
  };

  own = option: lib.hasPrefix "nixos-nspawn." option.name && option.visible && !option.internal;

  entries = module: map entry (lib.filter own (documented module));
in
{
  host = entries ./modules/host-options.nix;
  container = entries ./modules/container-options.nix;
}
