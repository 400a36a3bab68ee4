# A node of the examples, which are written for a node with Debian's paths.
{ pkgs, ... }:
{
  networking.firewall.enable = false;
  environment.systemPackages = [ pkgs.curl ];
  systemd.tmpfiles.rules = [
    "d /usr/bin 0755 root root"
    "L /usr/bin/python3 - - - - ${pkgs.python3}/bin/python3"
    "L /usr/bin/sleep - - - - ${pkgs.coreutils}/bin/sleep"
  ];
}
