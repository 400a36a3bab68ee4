# The firewall lets in what it is told to, and nothing else.
{
  name = "firewall";

  nodes =
    let
      listener = pkgs: port: {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server --directory /etc ${toString port}";
      };
    in
    {
      walled =
        { pkgs, ... }:
        {
          networking.firewall.enable = true;
          networking.firewall.allowedTCPPorts = [ 80 ];
          systemd.services.open = listener pkgs 80;
          systemd.services.closed = listener pkgs 8080;
        };

      unwalled =
        { pkgs, ... }:
        {
          networking.firewall.enable = false;
          systemd.services.open = listener pkgs 8080;
        };

      attacker =
        { pkgs, ... }:
        {
          environment.systemPackages = [ pkgs.curl ];
        };
    };

  testScript = ''
    start_all()
    for machine_, unit, port in ((walled, "open", 80), (walled, "closed", 8080), (unwalled, "open", 8080)):
        machine_.wait_for_unit(f"{unit}.service")
        machine_.wait_for_open_port(port)
    attacker.wait_for_unit("multi-user.target")

    attacker.succeed("curl --fail --silent --max-time 5 http://walled/")
    attacker.fail("curl --fail --silent --max-time 2 http://walled:8080/")
    attacker.succeed("curl --fail --silent --max-time 5 http://unwalled:8080/")
  '';
}
