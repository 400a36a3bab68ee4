{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkOption types;
  cfg = config.networking;
  systemdText = import ../text.nix { inherit lib; };

  address = {
    options = {
      address = mkOption {
        type = types.str;
        description = "Address.";
      };
      prefixLength = mkOption {
        type = types.int;
        description = "Bits of the subnet.";
      };
    };
  };
  family = mkOption {
    type = types.submodule {
      options.addresses = mkOption {
        type = types.listOf (types.submodule address);
        default = [ ];
        description = "Addresses of the interface.";
      };
      options.routes = mkOption {
        type = types.listOf (
          types.submodule {
            options = address.options // {
              via = mkOption {
                type = types.nullOr types.str;
                default = null;
                description = "Next hop.";
              };
            };
          }
        );
        default = [ ];
        description = "Routes by the interface.";
      };
    };
    default = { };
    description = "One family's addresses.";
  };
  interface = {
    options = {
      ipv4 = family;
      ipv6 = family;
      useDHCP = mkOption {
        type = types.nullOr types.bool;
        default = null;
        description = "Whether addresses come by DHCP.";
      };
    };
  };

  bool =
    default: description:
    mkOption {
      type = types.bool;
      inherit default description;
    };
  ports = mkOption {
    type = types.listOf types.port;
    default = [ ];
    description = "Ports that are let in.";
  };
  joined = list: lib.concatMapStringsSep ", " toString list;
  accept = protocol: list: lib.optionalString (list != [ ]) "${protocol} dport { ${joined list} } accept\n";
in
{
  options = {
    networking = {
      hostName = mkOption {
        type = types.str;
        default = "nixos";
        description = "Name of the machine.";
      };
      domain = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "Domain of the machine.";
      };
      extraHosts = mkOption {
        type = types.lines;
        default = "";
        description = "Lines of /etc/hosts.";
      };
      hosts = mkOption {
        type = types.attrsOf (types.listOf types.str);
        default = { };
        description = "Names by address.";
      };
      nameservers = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Name servers.";
      };
      interfaces = mkOption {
        type = types.attrsOf (types.submodule interface);
        default = { };
        description = "Interfaces and their addresses.";
      };
      useNetworkd = bool false "Whether networkd sets interfaces up.";
      useDHCP = bool true "Whether interfaces ask for addresses.";
      useHostResolvConf = bool true "Whether the machine's name servers are used.";
      enableIPv6 = bool true "Whether there is IPv6.";
      firewall = {
        enable = bool true "Whether what comes in is filtered.";
        allowPing = bool true "Whether pings are let in.";
        allowedTCPPorts = ports;
        allowedUDPPorts = ports;
        trustedInterfaces = mkOption {
          type = types.listOf types.str;
          default = [ ];
          description = "Interfaces by which everything is let in.";
        };
        interfaces = mkOption {
          type = types.attrsOf (
            types.submodule {
              options.allowedTCPPorts = ports;
              options.allowedUDPPorts = ports;
            }
          );
          default = { };
          description = "Ports by interface.";
        };
      };
    };
    systemd.network = {
      enable = bool cfg.useNetworkd "Whether networkd runs.";
      networks = mkOption {
        type = types.attrsOf (
          types.submodule {
            options = {
              name = mkOption {
                type = types.nullOr types.str;
                default = null;
                description = "Name that an interface has to have.";
              };
              matchConfig = mkOption {
                type = types.attrsOf types.unspecified;
                default = { };
                description = "Section [Match].";
              };
              networkConfig = mkOption {
                type = types.attrsOf types.unspecified;
                default = { };
                description = "Section [Network].";
              };
              linkConfig = mkOption {
                type = types.attrsOf types.unspecified;
                default = { };
                description = "Section [Link].";
              };
              address = mkOption {
                type = types.listOf types.str;
                default = [ ];
                description = "Addresses.";
              };
              routes = mkOption {
                type = types.listOf types.attrs;
                default = [ ];
                description = "Sections [Route].";
              };
            };
          }
        );
        default = { };
        description = "networkd's .network files.";
      };
    };
  };

  config = {
    systemd.network.networks = lib.mapAttrs' (
      name: each:
      lib.nameValuePair "40-${name}" {
        matchConfig.Name = name;
        address = map (one: "${one.address}/${toString one.prefixLength}") (each.ipv4.addresses ++ each.ipv6.addresses);
        routes = map (one: {
          Destination = "${one.address}/${toString one.prefixLength}";
        } // lib.optionalAttrs (one.via != null) { Gateway = one.via; }) (each.ipv4.routes ++ each.ipv6.routes);
      }
    ) cfg.interfaces;

    environment.etc = {
      hostname.text = cfg.hostName + "\n";
      hosts.text = ''
        127.0.0.1 localhost
        ::1 localhost
        127.0.0.2 ${lib.optionalString (cfg.domain != null) "${cfg.hostName}.${cfg.domain} "}${cfg.hostName}
        ${lib.concatStringsSep "\n" (lib.mapAttrsToList (address: names: "${address} ${lib.concatStringsSep " " names}") cfg.hosts)}
        ${cfg.extraHosts}
      '';
    }
    // lib.optionalAttrs (cfg.nameservers != [ ]) {
      "resolv.conf".text = lib.concatMapStrings (each: "nameserver ${each}\n") cfg.nameservers;
    }
    // lib.mapAttrs' (
      name: each:
      lib.nameValuePair "systemd/network/${name}.network" {
        text = systemdText (
          {
            Match = each.matchConfig // lib.optionalAttrs (each.name != null) { Name = each.name; };
            Link = each.linkConfig;
            Network = each.networkConfig // lib.optionalAttrs (each.address != [ ]) { Address = each.address; };
          }
        )
        + lib.concatMapStrings (route: systemdText { Route = route; }) each.routes;
      }
    ) config.systemd.network.networks;

    systemd.targets.network-online.wantedBy = lib.mkIf config.systemd.network.enable [ "multi-user.target" ];
    systemd.enabledUpstreamUnits = lib.mkIf config.systemd.network.enable {
      "multi-user.target.wants" = [ "systemd-networkd.service" ];
      "sockets.target.wants" = [ "systemd-networkd.socket" ];
      "network-online.target.wants" = [ "systemd-networkd-wait-online.service" ];
    };

    systemd.services.firewall = lib.mkIf cfg.firewall.enable {
      description = "Firewall";
      wantedBy = [ "multi-user.target" ];
      before = [ "network-pre.target" ];
      wants = [ "network-pre.target" ];
      unitConfig.DefaultDependencies = false;
      after = [ "systemd-sysctl.service" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "/usr/sbin/nft -f ${pkgs.writeText "firewall.nft" ''
          table inet nixos-fw
          delete table inet nixos-fw
          table inet nixos-fw {
            chain input {
              type filter hook input priority 0; policy drop;
              iifname "lo" accept
              ct state established,related accept
              meta l4proto 58 accept # ICMPv6; names of protocols would need /etc/protocols
              ${lib.optionalString cfg.firewall.allowPing "icmp type echo-request accept"}
              ${lib.concatMapStrings (each: "iifname \"${each}\" accept\n") cfg.firewall.trustedInterfaces}
              ${accept "tcp" cfg.firewall.allowedTCPPorts}
              ${accept "udp" cfg.firewall.allowedUDPPorts}
              ${lib.concatStrings (
                lib.mapAttrsToList (
                  name: each:
                  lib.optionalString (each.allowedTCPPorts != [ ]) "iifname \"${name}\" tcp dport { ${joined each.allowedTCPPorts} } accept\n"
                  + lib.optionalString (each.allowedUDPPorts != [ ]) "iifname \"${name}\" udp dport { ${joined each.allowedUDPPorts} } accept\n"
                ) cfg.firewall.interfaces
              )}
            }
          }
        ''}";
        ExecStop = "/usr/sbin/nft delete table inet nixos-fw";
      };
    };
  };
}
