{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkOption types;
  cfg = config.nix;
  text = value: if builtins.isBool value then lib.boolToString value else toString value;
in
{
  options = {
    nix = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether there is Nix.";
      };
      package = mkOption {
        type = types.package;
        default = pkgs.nix;
        description = "Which Nix.";
      };
      settings = mkOption {
        type = types.attrsOf types.unspecified;
        default = { };
        description = "Lines of nix.conf(5).";
      };
    };
    boot.postBootCommands = mkOption {
      type = types.lines;
      default = "";
      description = "What runs before systemd.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    nix.settings = {
      build-users-group = lib.mkDefault "";
      substituters = lib.mkDefault "";
      experimental-features = lib.mkDefault "nix-command flakes";
    };
    environment.etc."nix/nix.conf".text = lib.concatStrings (
      lib.mapAttrsToList (name: value: "${name} = ${text value}\n") cfg.settings
    );
  };
}
