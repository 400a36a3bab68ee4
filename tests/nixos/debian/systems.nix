# The systems that tests/nixos/test_debian_systems.py boots: { wrapper }: name -> system.
{ wrapper }:

let
  lib = import (wrapper + "/lib");
  evalConfig = import (wrapper + "/nixos/lib/eval-config.nix");

  system = name: module: (evalConfig { modules = [ base module { networking.hostName = name; } ]; }).config.system.build.toplevel;

  base = {
    boot.isContainer = true;
    networking.useDHCP = false;
    networking.useNetworkd = true;
    networking.useHostResolvConf = false;
  };

  server = page: { pkgs, ... }: {
    networking.firewall.allowedTCPPorts = [ 22 80 ];
    services.openssh.enable = true;
    services.nginx = {
      enable = true;
      virtualHosts.localhost.locations."/".root = pkgs.writeTextDir "index.html" page;
    };
    users.users.alice = {
      isNormalUser = true;
      uid = 1234;
      extraGroups = [ "wheel" ];
    };
    security.sudo.wheelNeedsPassword = false;
  };

  resolved = {
    services.resolved.enable = true;
    services.resolved.extraConfig = "MulticastDNS=yes";
    networking.firewall.allowedUDPPorts = [ 5353 5355 ];
    # Beside the harness's own file for the link.
    environment.etc."systemd/network/50-eth1.network.d/mdns.conf".text = "[Network]\nMulticastDNS=yes\n";
  };
in
rec {
  minimal = system "minimal" { };

  one = system "one" {
    imports = [ (server "page of one") resolved ];
    specialisation.other.configuration = { pkgs, ... }: {
      services.nginx.virtualHosts.localhost.locations."/other".root = pkgs.writeTextDir "other/index.html" "page of the specialisation";
      environment.etc."specialisation".text = "other";
      users.users.bob.isNormalUser = true;
    };
  };

  two = system "two" { imports = [ (server "page of two") resolved ]; };

  client = system "client" { imports = [ resolved ]; };

  # Has machined and systemd-nspawn@ run the minimal system.
  host = system "host" ({ pkgs, ... }: {
    # The container asks for its address there.
    networking.firewall.trustedInterfaces = [ "ve-+" ];
    systemd.nspawn.inner = {
      execConfig = { Boot = false; Parameters = "${minimal}/init"; KillSignal = "SIGRTMIN+3"; PrivateUsers = false; NotifyReady = true; };
      filesConfig.BindReadOnly = "/nix/store";
      networkConfig.VirtualEthernet = true;
    };
    # On the template: 20.09 would write a whole unit for the instance, without Type=notify and Delegate=.
    systemd.services."systemd-nspawn@" = {
      environment.SYSTEMD_NSPAWN_UNIFIED_HIERARCHY = "1";
      serviceConfig.ExecStartPre = "${pkgs.coreutils}/bin/mkdir -p /var/lib/machines/%i/usr";
    };
  });
}
