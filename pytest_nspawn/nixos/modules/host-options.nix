# The options of a host. Only what is given or asked for is evaluated, so that their documentation needs no packages.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (import ./containers.nix { inherit lib; }) isName;
  inherit (import ./types.nix { inherit lib; }) literal settingsFor systemBy;

  cfg = config.nixos-nspawn;

  # The host's own nixpkgs and package set, so that both share what they can.
  evaluate =
    name: container: modules:
    (import (pkgs.path + "/nixos/lib/eval-config.nix") {
      inherit lib;
      inherit (pkgs.stdenv.hostPlatform) system;
      modules = [
        ./container.nix
        {
          _file = "nixos-nspawn.containers.${name}";
          # A name that is none is told of by an assertion.
          networking.hostName = lib.mkIf (isName name) (lib.mkDefault name);
          nixos-nspawn.container = {
            inherit (container) store;
            veth = container.network.veth.enable;
          };
          nixpkgs.pkgs = lib.mkDefault pkgs;
          system.stateVersion = lib.mkDefault config.system.stateVersion;
        }
        (lib.mkIf container.network.veth.enable {
          systemd.network.networks."20-host0" = container.network.veth.config.container;
        })
      ]
      ++ cfg.imports
      ++ modules;
    }).config;

  bind =
    { name, ... }:
    {
      options = {
        hostPath = mkOption {
          type = types.str;
          default = name;
          defaultText = literal "name";
          example = "/srv/web";
          description = ''
            The path on the host. It must exist when the container starts; `systemd.tmpfiles.rules` can make it.
          '';
        };

        readOnly = mkOption {
          type = types.bool;
          default = true;
          example = false;
          description = "Whether the container can only read it.";
        };

        options = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = literal "[ \"idmap\" ]";
          description = ''
            Options of the mount, as `--bind=` of systemd-nspawn has them: `idmap`, `rootidmap`, `norbind`. A
            container with users of its own can write to a directory of the host's root only with `idmap`: then
            its root is root there.
          '';
        };
      };
    };

  veth = {
    enable = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = ''
        Whether the container has a network of its own, and a virtual Ethernet link to the host: `ve-NAME` on
        the host, `host0` in the container. Without it the container shares the network of the host.
      '';
    };

    zone = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "web";
      description = ''
        A zone: containers of one zone share a bridge `vz-ZONE`, which exists while one of them runs, and reach
        each other over it.
      '';
    };

    config = {
      host = mkOption {
        type = settingsFor "networkd settings of a network";
        default = { };
        example = literal ''
          {
            address = [ "192.168.42.1/24" "fd42::1/64" ];
            networkConfig.DHCPServer = false;
          }
        '';
        description = ''
          Settings of the host's side, as in `systemd.network.networks.NAME`, merged over the defaults: a DHCP
          server with a range of its own, masquerading, link-local addresses, multicast DNS. In a zone they are
          the settings of its bridge, and those of all its containers are merged.
        '';
      };

      container = mkOption {
        type = settingsFor "networkd settings of a network";
        default = { };
        example = literal ''
          {
            address = [ "192.168.42.2/24" "fd42::2/64" ];
            gateway = [ "192.168.42.1" ];
          }
        '';
        description = ''
          Settings of `host0` in the container, as in `systemd.network.networks.NAME`, merged over the defaults:
          DHCP (unless there is an `address` here), link-local addresses, multicast DNS. A container that is
          given as a built `path` brings its own.
        '';
      };
    };
  };

  container =
    { config, name, ... }:
    {
      options = {
        config = mkOption {
          type = types.nullOr (systemBy (evaluate name config));
          default = null;
          example = literal ''
            { pkgs, ... }:
            {
              environment.systemPackages = [ pkgs.hello ];
            }
          '';
          description = ''
            The container's configuration, a NixOS module. It is evaluated with the nixpkgs and the package set of
            the host. Read, it is the evaluated configuration: `config.nixos-nspawn.containers.NAME.config.services`
            and so on can be used in the host's.
          '';
        };

        path = mkOption {
          type = types.nullOr types.path;
          default = null;
          example = literal "inputs.web.nixosConfigurations.web.config.system.build.toplevel";
          description = ''
            A built NixOS system, instead of `config`. It should import the container module, `container.nix`.
          '';
        };

        autoStart = mkOption {
          type = types.bool;
          default = true;
          example = false;
          description = "Whether the container starts with the host. `machinectl start NAME` starts it at any time.";
        };

        restartIfChanged = mkOption {
          type = types.bool;
          default = true;
          example = false;
          description = ''
            Whether a running container is restarted by a switch to a host configuration in which its own has
            changed. If not, it goes on as it is until it is restarted.
          '';
        };

        binds = mkOption {
          type = types.attrsOf (types.submodule bind);
          default = { };
          example = literal ''
            {
              "/var/lib/web" = {
                hostPath = "/srv/web";
                readOnly = false;
                options = [ "idmap" ];
              };
            }
          '';
          description = "What of the host the container sees beside its store, by the path in the container.";
        };

        network.veth = veth;

        credentials = mkOption {
          type = types.attrsOf types.str;
          default = { };
          example = literal "{ token = \"/run/secrets/web-token\"; }";
          description = ''
            Credentials for the container, by name: the path of a file on the host, read when the container
            starts and never copied to the store. Units in the container take them with `LoadCredential=NAME`.
            A path that does not begin with a slash is looked up in the host's credential stores.
          '';
        };

        store = mkOption {
          type = types.enum [
            "host"
            "closure"
            "writable"
          ];
          default = "host";
          example = "closure";
          description = ''
            What the container sees as its Nix store: all of the host's, read-only (`host`); the paths that its
            system needs and no others, read-only (`closure`); the same in a store of its own that it may add to,
            with a database in which they are registered, so that a Nix daemon works in it (`writable`). The
            daemon of the host is handed in with none of them.
          '';
        };

        privateUsers = mkOption {
          type = types.either types.bool types.str;
          default = true;
          example = "identity";
          description = ''
            Whether the container has users of its own: its root is a user of the host without any rights, from a
            range of 65536 that is picked at each start. A text is given to `PrivateUsers=` of systemd.nspawn(5)
            as it is. Without them root in the container is root of the host, only confined.
          '';
        };

        rootSize = mkOption {
          type = types.str;
          default = "1G";
          example = "25%";
          description = ''
            How much the container may write outside of its binds. It is kept in memory, as `size=` of tmpfs(5)
            has it, and gone when the container stops.
          '';
        };

        extraOptions = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = literal "[ \"--capability=CAP_SYS_NICE\" ]";
          description = "More options for systemd-nspawn, the last word over its command line.";
        };
      };
    };
in
{
  options.nixos-nspawn = {
    containers = mkOption {
      type = types.attrsOf (types.submodule container);
      default = { };
      example = literal ''
        {
          web.config =
            { pkgs, ... }:
            {
              environment.systemPackages = [ pkgs.hello ];
            };
        }
      '';
      description = ''
        Ephemeral NixOS containers, run by systemd's own `systemd-nspawn@NAME.service`. Each starts from nothing
        but its configuration; what is to stay is bound in with `binds`.
      '';
    };

    imports = mkOption {
      type = types.listOf (
        lib.mkOptionType {
          name = "module";
          description = "NixOS module";
          check = value: builtins.isAttrs value || lib.isFunction value || lib.hasPrefix "/" (toString value);
        }
      );
      default = [ ];
      example = literal "[ { time.timeZone = \"Europe/Berlin\"; } ]";
      description = "Modules that every container with a `config` imports.";
    };
  };
}
