# nginx on the host as the reverse proxy of nginx in a container, which it calls by name.
{
  imports = [ ../host.nix ];

  nixos-nspawn.containers.backend.config =
    { pkgs, ... }:
    {
      networking.firewall.allowedTCPPorts = [ 80 ];
      services.nginx = {
        enable = true;
        virtualHosts.backend = {
          default = true;
          root = pkgs.writeTextDir "index.html" "hello from the container\n";
        };
      };
    };

  services.nginx = {
    enable = true;
    virtualHosts.proxy = {
      default = true;
      # The name is asked for again as its answer gets old: the container may come back with another address.
      # Only its IPv4 one: multicast DNS also gives link-local IPv6 addresses, which mean nothing to nginx.
      locations."/".extraConfig = ''
        resolver 127.0.0.53 ipv6=off;
        set $backend backend.local;
        proxy_pass http://$backend;
      '';
    };
  };
  networking.firewall.allowedTCPPorts = [ 80 ];
}
