{ pkgs, ... }:
{
  networking.firewall.allowedTCPPorts = [ 80 ];

  systemd.services.web = {
    description = "A page at port 80";
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server --directory ${pkgs.writeTextDir "index.html" "hello"} 80";
  };
}
