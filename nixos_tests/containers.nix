# A test whose machines are declared as containers, as newer releases have it, beside one that is not.
{
  name = "containers";

  nodes.machine =
    { pkgs, ... }:
    {
      networking.firewall.allowedTCPPorts = [ 80 ];
      systemd.services.web = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server --directory /etc 80";
      };
    };

  containers.box =
    { pkgs, ... }:
    {
      environment.systemPackages = [ pkgs.curl ];
    };

  testScript = ''
    start_all()
    box.wait_for_unit("multi-user.target")
    machine.wait_for_unit("multi-user.target")
    assert sorted(each.name for each in machines) == ["box", "machine"]
    # Both kinds are numbered together, by name.
    machine.wait_for_unit("web.service")
    machine.wait_for_open_port(80)
    box.wait_until_succeeds("curl --fail --silent --max-time 2 http://192.168.1.2/hostname", timeout=30)
    assert box.succeed("curl --fail --silent http://machine/hostname") == "machine\n"
  '';
}
