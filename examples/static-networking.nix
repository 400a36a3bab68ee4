# Static IPv4 and IPv6 addresses on both sides of the link.
{
  imports = [ ../host.nix ];

  nixos-nspawn.containers.static = {
    network.veth.config = {
      host.address = [
        "192.168.42.1/24"
        "fd42::1/64"
      ];
      container = {
        address = [
          "192.168.42.2/24"
          "fd42::2/64"
        ];
        gateway = [
          "192.168.42.1"
          "fd42::1"
        ];
      };
    };
    config = { };
  };
}
