# The host's side of the containers' networks.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (lib)
    filterAttrs
    mapAttrs'
    mapAttrsToList
    mkDefault
    mkIf
    mkMerge
    nameValuePair
    ;
  inherit (import ./containers.nix { inherit lib; }) interfaceOf;

  containers = filterAttrs (_: container: container.network.veth.enable) config.nixos-nspawn.containers;

  # Before 21.05 nixpkgs knows only yes and no.
  masquerade = if lib.versionAtLeast lib.version "21.05" then "both" else "yes";

  defaults =
    interface: zone:
    { config, ... }:
    {
      matchConfig.Name = mkDefault interface;
      # The host does not wait for its containers.
      linkConfig.RequiredForOnline = mkDefault "no";
      networkConfig = {
        # A range that is free; containers of a zone share one.
        Address = mkIf (config.address == [ ]) (mkDefault "0.0.0.0/${if zone == null then "28" else "24"}");
        # A bridge loses its carrier with each container: its range must not change with it. And the DHCP server is
        # ready before the container asks, which waits four seconds before it asks again.
        ConfigureWithoutCarrier = mkDefault "yes";
        DHCPServer = mkDefault (if config.address == [ ] then "yes" else "no");
        IPMasquerade = mkDefault masquerade;
        LinkLocalAddressing = mkDefault "yes";
        MulticastDNS = mkDefault "yes";
        # It would answer for the same names, with link-local addresses that most programs can't use.
        LLMNR = mkDefault "no";
        LLDP = mkDefault "yes";
        EmitLLDP = mkDefault "customer-bridge";
      };
    };

  # By the name of the interface: containers of a zone share one.
  interfaces = lib.groupBy (one: one.interface) (
    mapAttrsToList (name: container: {
      interface = interfaceOf name container;
      inherit (container.network.veth) config zone;
    }) containers
  );

  networks = mapAttrs' (
    interface: sides:
    nameValuePair "20-nspawn-${interface}" (
      { ... }:
      {
        imports = [ (defaults interface (builtins.head sides).zone) ] ++ map (side: side.config.host) sides;
      }
    )
  ) interfaces;

  # Multicast DNS is on for each link that asks for it, unless it is off for all.
  resolved =
    if options.services.resolved ? settings then
      { services.resolved.settings.Resolve.MulticastDNS = mkDefault true; }
    else
      { services.resolved.extraConfig = "MulticastDNS=yes"; };

  # A host whose own links are not networkd's would wait for none of them to come up.
  withoutWaiting =
    if options.systemd.network ? wait-online then
      { systemd.network.wait-online.enable = mkDefault false; }
    else
      { systemd.services.systemd-networkd-wait-online.enable = mkDefault false; };

  # All that systemd-nspawn makes, with shortened names too.
  made = [
    "ve-*"
    "vb-*"
    "vz-*"
  ];

  # Those of them that containers talk to the host by.
  links = map (prefix: prefix + (if config.networking.nftables.enable or false then "*" else "+")) [
    "ve-"
    "vz-"
  ];
in
{
  config = mkIf (containers != { }) (mkMerge [
    resolved
    (mkIf (!config.networking.useNetworkd) withoutWaiting)
    {
      systemd.network = {
        enable = mkDefault true;
        inherit networks;
      };
      services.resolved.enable = mkDefault true;
      # No other program is to configure them.
      networking.dhcpcd.denyInterfaces = made;
      networking.networkmanager.unmanaged = map (name: "interface-name:${name}") made;
      networking.firewall.interfaces = lib.genAttrs links (_: {
        # DHCP and multicast DNS.
        allowedUDPPorts = [
          67
          5353
        ];
      });
    }
  ]);
}
