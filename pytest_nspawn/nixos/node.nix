# The profile of a node: what a NixOS system needs to be booted by pytest-nspawn, and what a NixOS test expects of it.
# Options that the given nixpkgs does not have are left out.
{
  config,
  lib,
  options,
  ...
}:

let
  inherit (lib) mkDefault mkOption types;

  cfg = config.virtualisation.nspawn;
  has = path: lib.hasAttrByPath path options;
  # A value for an option, where there is one.
  maybe = path: value: lib.optionalAttrs (has path) (lib.setAttrByPath path value);
  # literalExpression came with 21.11.
  literal = lib.literalExpression or lib.literalExample or (text: text);

  defaultAddresses = vlan: {
    address4 = "192.168.${toString vlan}.${toString cfg.nodeNumber}";
    prefix4 = 24;
    address6 = "2001:db8:${toString vlan}::${toString cfg.nodeNumber}";
    prefix6 = 64;
  };
  addressesOf =
    network:
    cfg.addresses.${toString network}
      or (if builtins.isInt network then defaultAddresses network else throw "node ${cfg.nodeName}: no addresses for network ${network}");

  fromVlans = lib.imap1 (index: network: {
    name = "eth${toString index}";
    inherit network;
    assignIP = true;
  }) cfg.networks;
  fromInterfaces = lib.mapAttrsToList (_: interface: {
    inherit (interface) name assignIP;
    network = interface.vlan;
  }) config.virtualisation.interfaces;
  interfaces = fromVlans ++ fromInterfaces;
  addressed = lib.filter (interface: interface.assignIP) interfaces;
  first = lib.head addressed;

  interfaceModule =
    { name, ... }:
    {
      options = {
        name = mkOption {
          type = types.str;
          default = name;
          description = "Name of the interface in the node, at most 15 bytes.";
        };
        vlan = mkOption {
          type = types.ints.unsigned;
          example = 2;
          description = "Number of the network that the interface is in.";
        };
        assignIP = mkOption {
          type = types.bool;
          default = false;
          description = "Whether the interface gets the node's addresses in that network.";
        };
      };
    };
in
{
  imports = [ ./vm-options.nix ];

  options = {
    virtualisation.vlans = mkOption {
      type = types.listOf types.ints.unsigned;
      default = if config.virtualisation.interfaces == { } then [ 1 ] else [ ];
      defaultText = literal "[ 1 ]";
      example = [
        1
        2
      ];
      description = "Numbers of the networks that the node is in: its interfaces are eth1, eth2, ... in this order.";
    };

    virtualisation.interfaces = mkOption {
      type = types.attrsOf (types.submodule interfaceModule);
      default = { };
      example = {
        enp1s0.vlan = 1;
      };
      description = "Interfaces with names of their own, beside those of `virtualisation.vlans`.";
    };

    networking.primaryIPAddress = mkOption {
      type = types.str;
      default = "";
      internal = true;
      description = "The IPv4 address of the node's first interface.";
    };

    networking.primaryIPv6Address = mkOption {
      type = types.str;
      default = "";
      internal = true;
      description = "The IPv6 address of the node's first interface.";
    };

    virtualisation.test = {
      nodeName = mkOption {
        type = types.str;
        default = cfg.nodeName;
        internal = true;
        description = "Name of the node in its test.";
      };

      nodeNumber = mkOption {
        type = types.ints.positive;
        default = cfg.nodeNumber;
        internal = true;
        description = "Number of the node in its test.";
      };
    };

    virtualisation.nspawn = {
      nodeName = mkOption {
        type = types.str;
        example = "web";
        description = "Name of the node in its test.";
      };

      nodeNumber = mkOption {
        type = types.ints.positive;
        example = 1;
        description = "Number of the node among all nodes of its test, which are sorted by name: the host part of its addresses.";
      };

      networks = mkOption {
        type = types.listOf (types.either types.ints.unsigned types.str);
        default = config.virtualisation.vlans;
        defaultText = literal "config.virtualisation.vlans";
        example = [
          1
          "front"
        ];
        description = "Numbers or names of the networks that the node is in, in the order of its interfaces eth1, eth2, ...";
      };

      addresses = mkOption {
        type = types.attrsOf (types.attrsOf (types.either types.str types.ints.unsigned));
        default = { };
        example = {
          front = {
            address4 = "10.0.0.1";
            prefix4 = 24;
            address6 = "fd00::1";
            prefix6 = 64;
          };
        };
        description = "Addresses of the node in networks that have others than those of their number.";
      };

      peers = mkOption {
        type = types.lines;
        default = "";
        description = "Lines for /etc/hosts that name all nodes of the test.";
      };

      store = mkOption {
        type = types.enum [
          "host"
          "closure"
          "writable"
        ];
        default = "host";
        description = "What the node sees of the Nix store: all of it, what its system needs, or an overlay that it may write to, with a database of its own.";
      };

      interfaces = mkOption {
        type = types.listOf types.attrs;
        default = interfaces;
        readOnly = true;
        internal = true;
        description = "All interfaces of the node, with their addresses.";
        apply = map (interface: interface // lib.optionalAttrs interface.assignIP (addressesOf interface.network));
      };
    };
  };

  config = lib.mkMerge [
    {
      assertions = [
        {
          assertion = lib.all (interface: lib.stringLength interface.name <= 15) interfaces;
          message = "virtualisation.interfaces: an interface's name has at most 15 bytes; give it another with `name`.";
        }
        {
          assertion = lib.length (lib.unique (map (interface: interface.name) interfaces)) == lib.length interfaces;
          message = "virtualisation.interfaces: two interfaces have one name; eth1, eth2, ... are those of virtualisation.vlans.";
        }
        {
          assertion = config.boot.isContainer;
          message = "boot.isContainer: a node is a container and has no kernel of its own; leave the option out.";
        }
      ];

      boot.isContainer = true;

      networking = {
        hostName = mkDefault cfg.nodeName;
        useDHCP = mkDefault false;
        # Weaker than a user, stronger than what containers of NixOS itself have.
        useHostResolvConf = lib.mkOverride 900 false;
        primaryIPAddress = if addressed == [ ] then "" else (addressesOf first.network).address4;
        primaryIPv6Address = if addressed == [ ] then "" else (addressesOf first.network).address6;
        extraHosts = cfg.peers;
        interfaces = lib.listToAttrs (
          map (
            interface:
            let
              given = addressesOf interface.network;
            in
            lib.nameValuePair interface.name {
              ipv4.addresses = [
                {
                  address = given.address4;
                  prefixLength = given.prefix4;
                }
              ];
              ipv6.addresses = [
                {
                  address = given.address6;
                  prefixLength = given.prefix6;
                }
              ];
            }
          ) addressed
        );
      };
    }

    # networkd: it is told when links come and go. There is no router to wait for.
    (maybe [ "networking" "useNetworkd" ] (mkDefault true))
    (lib.optionalAttrs (has [ "systemd" "network" "networks" ]) {
      systemd.network.networks = lib.mkIf (config.networking.useNetworkd or false) (
        lib.listToAttrs (
          map (interface: lib.nameValuePair "40-${interface.name}" { networkConfig.IPv6AcceptRA = mkDefault false; }) addressed
        )
      );
    })

    # A node that is in no network would wait for one for two minutes.
    (lib.mkIf (interfaces == [ ]) (
      if has [ "systemd" "network" "wait-online" ] then
        { systemd.network.wait-online.enable = mkDefault false; }
      else
        { systemd.services.systemd-networkd-wait-online.enable = mkDefault false; }
    ))

    # Nothing in a container misses these; docs/boot.md has the reasons.
    (maybe
      [ "systemd" "suppressedSystemUnits" ]
      [
        "systemd-tmpfiles-setup-dev.service"
        "systemd-tmpfiles-setup-dev-early.service"
        "systemd-hwdb-update.service"
        "systemd-machine-id-commit.service"
        "systemd-boot-random-seed.service"
        "systemd-random-seed.service"
        "dev-hugepages.mount"
      ]
    )

    # Containers of NixOS start sshd on demand; a test waits for the service.
    (maybe [ "services" "openssh" "startWhenNeeded" ] (lib.mkOverride 900 false))

    # Root logs in on the console with no password, as in a NixOS test; also, NixOS wants somebody who can.
    (lib.optionalAttrs (has [ "users" "mutableUsers" ]) {
      users.users.root.initialHashedPassword = lib.mkOverride 150 "";
    })

    # A switch would mount /dev, /run and the like anew, which it may not in a user namespace: what is there stays.
    (lib.optionalAttrs (has [ "boot" "specialFileSystems" ]) {
      system.activationScripts.specialfs = lib.mkForce ''
        specialMount() {
          mountpoint -q "$2" || { mkdir -m 0755 -p "$2"; mount -t "$4" -o "$3" "$1" "$2"; }
        }
        source ${config.system.build.earlyMountScript}
      '';
    })

    # Manuals take longer to evaluate than everything else.
    (maybe [ "documentation" "enable" ] (mkDefault false))
    (maybe [ "documentation" "nixos" "enable" ] (mkDefault false))
    (maybe [ "programs" "command-not-found" "enable" ] (mkDefault false))

    # The machine's daemon is not handed in: where the node may build, it does so by itself.
    (maybe [ "nix" "enable" ] (mkDefault (cfg.store == "writable")))
    (lib.optionalAttrs (has [ "environment" "variables" ]) {
      environment.variables.NIX_REMOTE = lib.mkForce "";
    })
    (lib.mkIf (cfg.store == "writable") (
      lib.mkMerge [
        {
          # Stage 2 runs it before systemd; the file is there at the first boot.
          boot.postBootCommands = ''
            if [ -e /nix/registration ]; then
              ${config.nix.package}/bin/nix-store --load-db </nix/registration
              rm /nix/registration
            fi
          '';
        }
        # A build's own namespaces are not to be had in every container.
        (
          if has [ "nix" "settings" ] then
            { nix.settings.sandbox = mkDefault false; }
          else
            maybe [ "nix" "useSandbox" ] (mkDefault false)
        )
      ]
    ))
  ];
}
