# Options of machines with a kernel of their own: here to be set, and to be explained.
{ lib, ... }:

let
  inherit (lib) mkOption types;
  list = mkOption {
    type = types.listOf types.unspecified;
    default = [ ];
    description = "Without effect in a container.";
  };
in
{
  options = {
    boot = {
      isContainer = mkOption {
        type = types.bool;
        default = false;
        description = "Whether the system is a container.";
      };
      kernelPackages = mkOption {
        type = types.unspecified;
        default = null;
        description = "Without effect in a container.";
      };
      kernelModules = list;
      kernelParams = list;
      kernelPatches = list;
      extraModulePackages = list;
      kernel.sysctl = mkOption {
        type = types.attrsOf types.unspecified;
        default = { };
        description = "Kernel settings, applied by systemd-sysctl.";
      };
    };
    services.xserver.enable = lib.mkEnableOption "a screen";
  };
}
