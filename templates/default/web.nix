{ pkgs, ... }:

let
  page = pkgs.writeTextDir "index.html" "hello";
in
{
  networking.firewall.allowedTCPPorts = [ 80 ];

  systemd.services.web = {
    description = "A page at port 80";
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server --directory ${page} 80";
  };
}
