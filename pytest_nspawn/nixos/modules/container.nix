# A NixOS system that boots in a container of systemd-nspawn, as the host module runs it.
#
# Options that the given nixpkgs lacks are left out: each `options ? name` says which.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkDefault mkIf mkMerge;

  cfg = config.nixos-nspawn.container;

  # Above what nixpkgs's own container profile sets as its default, below what anybody writes.
  mkProfile = lib.mkOverride 900;

  # A store of many binds must not be bound onto itself again: that would hide them.
  storeOfBinds =
    if options.boot ? nixStoreMountOpts then
      { boot.nixStoreMountOpts = mkProfile [ ]; }
    else if options.boot ? readOnlyNixStore then
      { boot.readOnlyNixStore = mkProfile false; }
    else
      { nix.readOnlyStore = mkProfile false; };

  # No daemon is handed in, and a store that belongs to the host is not for the container's own.
  withoutNix =
    if options.nix ? enable then
      { nix.enable = mkProfile false; }
    else
      {
        systemd.services.nix-daemon.enable = mkProfile false;
        systemd.sockets.nix-daemon.enable = mkProfile false;
      };

  # Multicast DNS is on for each link that asks for it, unless it is off for all.
  resolved =
    if options.services.resolved ? settings then
      { services.resolved.settings.Resolve.MulticastDNS = mkDefault true; }
    else
      { services.resolved.extraConfig = "MulticastDNS=yes"; };

  ownNetwork = mkMerge [
    resolved
    {
      networking.useNetworkd = mkProfile true;
      # Multicast DNS: others find the container by its name.
      networking.firewall.interfaces.host0.allowedUDPPorts = [ 5353 ];
      services.resolved.enable = mkProfile true;
      # What is given for this network is merged over these.
      systemd.network.networks."20-host0" =
        { config, ... }:
        {
          matchConfig.Name = mkDefault "host0";
          networkConfig = {
            DHCP = mkDefault (if config.address == [ ] then "yes" else "no");
            LinkLocalAddressing = mkDefault "yes";
            MulticastDNS = mkDefault "yes";
            LLMNR = mkDefault "no";
            LLDP = mkDefault "yes";
            EmitLLDP = mkDefault "customer-bridge";
          };
        };
    }
  ];

  hostNetwork = {
    # The host's links are not the container's to configure.
    networking.useNetworkd = mkProfile false;
    networking.firewall.enable = mkProfile false;
  };
in
{
  imports = [ ./container-options.nix ];

  config = mkMerge [
    {
      boot = if options.boot ? isNspawnContainer then { isNspawnContainer = true; } else { isContainer = true; };
      networking.useDHCP = mkProfile false;
      networking.useHostResolvConf = mkProfile (!cfg.veth);
      # It refuses settings that root does not own, as the store's are here, and what it would rotate does not stay.
      services.logrotate.enable = mkProfile false;
    }
    # The kernel's entropy is the host's business. By the version: later ones have the option still, but only to refuse it.
    (lib.optionalAttrs (lib.versionOlder lib.version "21.05") { security.rngd.enable = mkProfile false; })
    (mkIf cfg.veth ownNetwork)
    (mkIf (!cfg.veth) hostNetwork)
    (mkIf (cfg.store != "host") storeOfBinds)
    (mkIf (cfg.store != "writable") withoutNix)
    (mkIf (cfg.store == "writable") {
      systemd.services.nixos-nspawn-store = {
        description = "Register the container's own store paths";
        wantedBy = [ "multi-user.target" ];
        requiredBy = [ "nix-daemon.service" ];
        before = [ "nix-daemon.service" ];
        unitConfig.ConditionPathExists = "/nix/registration";
        # The database itself, not the daemon, which waits for this.
        environment.NIX_REMOTE = "local";
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          StandardInput = "file:/nix/registration";
          ExecStart = "${lib.getBin config.nix.package}/bin/nix-store --load-db";
        };
      };
    })
  ];
}
