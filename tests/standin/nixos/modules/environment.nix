{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkOption types;

  entry =
    { name, config, ... }:
    {
      options = {
        enable = mkOption {
          type = types.bool;
          default = true;
          description = "Whether the file is there.";
        };
        target = mkOption {
          type = types.str;
          default = name;
          description = "Path below /etc.";
        };
        text = mkOption {
          type = types.nullOr types.lines;
          default = null;
          description = "Text of the file.";
        };
        source = mkOption {
          type = types.path;
          default = pkgs.writeText (builtins.replaceStrings [ "/" "@" ] [ "-" "-" ] name) (
            if config.text == null then throw "environment.etc.${name} has neither text nor source" else config.text
          );
          description = "What the file is a link to.";
        };
        mode = mkOption {
          type = types.str;
          default = "symlink";
          description = "Mode of the file; \"symlink\" makes a link.";
        };
        user = mkOption {
          type = types.str;
          default = "0";
          description = "Owner of a file with a mode.";
        };
        group = mkOption {
          type = types.str;
          default = "0";
          description = "Group of a file with a mode.";
        };
      };
    };
  entries = lib.filter (each: each.enable) (lib.attrValues config.environment.etc);
in
{
  options.environment = {
    etc = mkOption {
      type = types.attrsOf (types.submodule entry);
      default = { };
      description = "Files below /etc.";
    };
    systemPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      description = "Packages whose programs are in everybody's path.";
    };
    variables = mkOption {
      type = types.attrsOf types.str;
      default = { };
      description = "Variables of login shells.";
    };
  };

  config = {
    environment.etc = {
      "os-release".text = ''
        ID=nixos
        NAME="NixOS (stand-in)"
        VERSION_ID="${lib.version}"
      '';
      "nsswitch.conf".text = ''
        passwd: files systemd
        group: files systemd
        shadow: files
        hosts: files myhostname dns
      '';
      profile.text = ''
        export PATH=/run/current-system/sw/bin:/usr/sbin:/usr/bin
      ''
      + lib.concatStrings (
        lib.mapAttrsToList (name: value: "export ${name}=${lib.escapeShellArg value}\n") config.environment.variables
      );
      "pam.d/other".text = ''
        auth required pam_unix.so nullok
        account required pam_unix.so
        password required pam_unix.so
        session required pam_unix.so
      '';
      "pam.d/login".text = ''
        auth sufficient pam_rootok.so
        auth required pam_unix.so nullok
        account required pam_unix.so
        session required pam_unix.so
        session optional pam_systemd.so
      '';
      "pam.d/su".text = ''
        auth sufficient pam_rootok.so
        account required pam_unix.so
        session required pam_unix.so
      '';
      # `su -` asks by a name of its own (su(1)).
      "pam.d/su-l".text = ''
        auth sufficient pam_rootok.so
        account required pam_unix.so
        session required pam_unix.so
      '';
      "pam.d/systemd-user".text = ''
        account required pam_unix.so
        session required pam_unix.so
        session optional pam_systemd.so
      '';
    };

    system.build.etc = pkgs.runCommand "etc" { } (
      "mkdir -p $out/etc\n"
      + lib.concatMapStrings (each: ''
        mkdir -p "$out/etc/$(dirname ${lib.escapeShellArg each.target})"
        ln -s ${each.source} $out/etc/${lib.escapeShellArg each.target}
      '') entries
    );
    # What is a link leads to /etc/static, which the next system replaces; what went is removed.
    system.activationScripts.etc = ''
      ln -sfn ${config.system.build.etc}/etc /etc/static
      (cd /etc/static && find . -type l) | while read -r path; do
        mkdir -p "/etc/$(dirname "$path")"
        [ -d "/etc/$path" ] && [ ! -L "/etc/$path" ] || ln -sfn "/etc/static/$path" "/etc/$path"
      done
      find /etc -type l | while read -r path; do
        case $(readlink "$path") in
          /etc/static/*) [ -e "$path" ] || rm -f "$path" ;;
        esac
      done
    ''
    + lib.concatMapStrings (each: ''
      rm -f /etc/${each.target}
      cp ${each.source} /etc/${each.target}
      chown ${each.user}:${each.group} /etc/${each.target}
      chmod ${each.mode} /etc/${each.target}
    '') (lib.filter (each: each.mode != "symlink") entries);

    system.path = pkgs.buildEnv {
      name = "system-path";
      paths = config.environment.systemPackages;
    };
  };
}
