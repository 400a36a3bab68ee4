{ config, lib, ... }:

let
  inherit (lib) mkOption types;
in
{
  options.fileSystems = mkOption {
    type = types.attrsOf (
      types.submodule {
        options = {
          device = mkOption {
            type = types.str;
            description = "What is mounted.";
          };
          fsType = mkOption {
            type = types.str;
            default = "auto";
            description = "Type of the file system.";
          };
          options = mkOption {
            type = types.listOf types.str;
            default = [ "defaults" ];
            description = "Options of mount(8).";
          };
        };
      }
    );
    default = { };
    description = "Lines of fstab(5), by mount point.";
  };

  config.environment.etc.fstab.text = lib.concatLines (
    lib.mapAttrsToList (
      path: each: "${each.device} ${path} ${each.fsType} ${lib.concatStringsSep "," each.options} 0 0"
    ) config.fileSystems
  );
}
