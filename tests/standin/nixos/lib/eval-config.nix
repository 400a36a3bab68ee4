# The interface of nixpkgs' own: a system from modules.
{
  system ? builtins.currentSystem,
  modules,
  specialArgs ? { },
  lib ? import ../../lib.nix,
  ...
}:

let
  modulesPath = toString ../modules;
  evaluated = lib.evalModules {
    modules = [
      ../modules/assertions.nix
      ../modules/boot.nix
      ../modules/environment.nix
      ../modules/file-systems.nix
      ../modules/networking.nix
      ../modules/nix.nix
      ../modules/nixpkgs.nix
      ../modules/specialisation.nix
      ../modules/system.nix
      ../modules/systemd.nix
      ../modules/users.nix
      { nixpkgs.system = lib.mkDefault system; }
    ]
    ++ modules;
    specialArgs = {
      inherit modulesPath;
    }
    // specialArgs;
  };
  withPackages =
    system:
    system
    // {
      inherit (system._module.args) pkgs;
      extendModules = arguments: withPackages (system.extendModules arguments);
    };
in
withPackages evaluated
