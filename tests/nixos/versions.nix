# The modules over the few options that they set, as an old nixpkgs and as a new one has them: what each is given.
# A library is enough, of any version.
{ lib, new }:
let
  inherit (lib) mkOption types;

  set = mkOption {
    type = types.attrsOf types.unspecified;
    default = { };
  };
  anything = default: mkOption {
    type = types.unspecified;
    inherit default;
  };

  # Packages are their names.
  package = name: "/nix/store/${name}";
  pkgs = {
    coreutils = package "coreutils";
    util-linux = package "util-linux";
    runCommand = name: _: _: package name;
    writeShellScript = name: _: package name;
    closureInfo = _: package "closure-info";
  };
  systemd = {
    outPath = package "systemd";
    version = "257.1";
    name = "systemd-257.1";
  };

  both = {
    assertions = anything [ ];
    warnings = anything [ ];
    environment = {
      etc = mkOption {
        type = types.attrsOf (
          types.submodule {
            options.text = anything null;
            options.source = anything (package "file");
          }
        );
      };
      variables = set;
    };
    networking = {
      useNetworkd = anything false;
      useDHCP = anything true;
      useHostResolvConf = anything true;
      nftables.enable = anything new;
      firewall = {
        enable = anything true;
        interfaces = set;
      };
      dhcpcd.denyInterfaces = anything [ ];
      networkmanager.unmanaged = anything [ ];
    };
    security.rngd.enable = anything true;
    services.logrotate.enable = anything true;
    systemd = {
      package = anything systemd;
      packages = anything [ ];
      services = mkOption {
        type = types.attrsOf (types.attrsOf types.unspecified);
        default = { };
      };
      sockets = set;
      targets = set;
      network = {
        enable = anything false;
        networks = mkOption {
          type = types.attrsOf (
            types.submodule {
              options = {
                address = anything [ ];
                matchConfig = set;
                linkConfig = set;
                networkConfig = set;
              };
            }
          );
          default = { };
        };
      }
      // lib.optionalAttrs new { wait-online.enable = anything true; };
    };
  };
  old = {
    boot.isContainer = anything false;
    nix = {
      readOnlyStore = anything true;
      package = anything (package "nix");
    };
    services.resolved = {
      enable = anything false;
      extraConfig = anything "";
    };
  };
  current = {
    boot = {
      isContainer = anything false;
      isNspawnContainer = anything false;
      nixStoreMountOpts = anything [ "ro" ];
    };
    nix = {
      enable = anything true;
      package = anything (package "nix");
    };
    services.resolved = {
      enable = anything false;
      settings.Resolve = set;
    };
  };

  evaluate =
    modules:
    (lib.evalModules {
      modules = modules ++ [
        {
          options = lib.recursiveUpdate both (if new then current else old);
          config._module.args = { inherit pkgs; };
        }
      ];
    }).config;

  container =
    store:
    evaluate [
      ../../container.nix
      { nixos-nspawn.container = { inherit store; }; }
    ];
  host = evaluate [
    ../../host.nix
    {
      nixos-nspawn.containers.web = {
        path = package "system";
        credentials.token = "/run/token";
      };
    }
  ];
in
{
  containers = lib.genAttrs [ "host" "closure" "writable" ] (
    store:
    let
      config = container store;
    in
    {
      inherit (config) boot;
      nix = removeAttrs config.nix [ "package" ];
      resolved = config.services.resolved;
      host0 = config.systemd.network.networks."20-host0".networkConfig;
      services = builtins.attrNames config.systemd.services;
    }
  );
  host = {
    resolved = host.services.resolved;
    waiting = host.systemd.network.wait-online or host.systemd.services.systemd-networkd-wait-online;
    network = host.systemd.network.networks."20-nspawn-ve-web".networkConfig;
    firewall = builtins.attrNames host.networking.firewall.interfaces;
    settings = host.environment.etc."systemd/nspawn/web.nspawn".text;
    start = host.systemd.services."systemd-nspawn@web".serviceConfig.ExecStart;
    failed = map (each: each.message) (lib.filter (each: !each.assertion) host.assertions);
  };
}
