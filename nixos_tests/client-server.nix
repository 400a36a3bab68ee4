# Two machines on one network: a client reaches a server by its name, through a firewall that lets it.
{
  name = "client-server";

  nodes = {
    server =
      { pkgs, ... }:
      {
        networking.firewall.allowedTCPPorts = [ 80 ];
        environment.etc."www/index.html".text = "served\n";
        systemd.services.web = {
          wantedBy = [ "multi-user.target" ];
          serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server --directory /etc/www 80";
        };
      };

    client =
      { pkgs, ... }:
      {
        environment.systemPackages = [ pkgs.curl ];
      };
  };

  testScript =
    { nodes, ... }:
    ''
      start_all()
      server.wait_for_unit("web.service")
      server.wait_for_open_port(80)
      client.wait_for_unit("multi-user.target")
      assert client.succeed("curl --fail --silent http://server/") == "served\n"

      # The address that the driver gives is the one that the name leads to.
      address = "${nodes.server.config.networking.primaryIPAddress or nodes.server.networking.primaryIPAddress}"
      assert address in client.succeed("getent ahostsv4 server")
      assert client.succeed(f"curl --fail --silent http://{address}/") == "served\n"
    '';
}
