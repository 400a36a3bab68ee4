# Two networks, and a router between them.
let
  # What `networking.interfaces` could say too; a route that a service adds is the same on every release.
  route = to: via: {
    wantedBy = [ "multi-user.target" ];
    after = [ "network.target" "network-online.target" "systemd-networkd.service" ];
    path = [ "/run/current-system/sw" ];
    serviceConfig.Type = "oneshot";
    serviceConfig.RemainAfterExit = true;
    script = ''
      until ip route replace ${to} via ${via}; do
        sleep 0.2
      done
    '';
  };
in
{
  name = "vlans";

  nodes = {
    inside =
      { pkgs, ... }:
      {
        virtualisation.vlans = [ 1 ];
        environment.systemPackages = [ pkgs.iproute2 or pkgs.iproute pkgs.curl ];
        systemd.services.way = route "192.168.2.0/24" "192.168.1.3";
      };

    outside =
      { pkgs, ... }:
      {
        virtualisation.vlans = [ 2 ];
        environment.systemPackages = [ pkgs.iproute2 or pkgs.iproute ];
        networking.firewall.allowedTCPPorts = [ 80 ];
        systemd.services.way = route "192.168.1.0/24" "192.168.2.3";
        systemd.services.web = {
          wantedBy = [ "multi-user.target" ];
          serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server --directory /etc 80";
        };
      };

    router =
      { pkgs, ... }:
      {
        virtualisation.vlans = [ 1 2 ];
        environment.systemPackages = [ pkgs.iproute2 or pkgs.iproute ];
        networking.firewall.enable = false;
        systemd.services.forward = {
          wantedBy = [ "multi-user.target" ];
          serviceConfig.Type = "oneshot";
          serviceConfig.RemainAfterExit = true;
          script = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        };
      };
  };

  testScript = ''
    start_all()

    # Nodes are numbered by their sorted names: inside, outside, router.
    with subtest("each machine has the addresses of its networks"):
        inside.wait_until_succeeds("ip -4 -o addr show eth1 | grep -F 192.168.1.1/24")
        outside.wait_until_succeeds("ip -4 -o addr show eth1 | grep -F 192.168.2.2/24")
        router.wait_until_succeeds("ip -4 -o addr show eth1 | grep -F 192.168.1.3/24")
        router.wait_until_succeeds("ip -4 -o addr show eth2 | grep -F 192.168.2.3/24")
        inside.fail("ip link show eth2")

    with subtest("the router forwards"):
        for machine_ in inside, outside:
            machine_.wait_for_unit("way.service")
        router.wait_for_unit("forward.service")
        outside.wait_for_unit("web.service")
        outside.wait_for_open_port(80)
        fetch = "curl --fail --silent --max-time 2 http://192.168.2.2/hostname"
        assert inside.wait_until_succeeds(fetch, timeout=30) == "outside\n"

    with subtest("without the router there is no way"):
        router.block()
        inside.fail(fetch)
        router.unblock()
        inside.wait_until_succeeds(fetch, timeout=30)
  '';
}
