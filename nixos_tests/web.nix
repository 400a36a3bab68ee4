# A plain service: a web server on one machine.
{ pkgs, ... }:
{
  name = "web";

  nodes.machine =
    { pkgs, ... }:
    {
      environment.etc."www/index.html".text = "hello\n";
      environment.systemPackages = [ pkgs.curl ];
      systemd.services.web = {
        description = "A small web server";
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server --directory /etc/www 80";
      };
    };

  testScript = ''
    start_all()
    machine.wait_for_unit("web.service")
    machine.wait_for_open_port(80)
    page = machine.succeed("curl --fail --silent http://localhost/index.html")
    assert page == "hello\n", f"the page is {page!r}"
    assert "small web server" in machine.get_unit_property("web.service", "Description")

    machine.stop_job("web")
    machine.wait_for_closed_port(80)
    machine.fail("curl --fail --silent http://localhost/index.html")
  '';
}
