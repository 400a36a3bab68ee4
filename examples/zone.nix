# Two containers in a zone: they reach each other over one bridge.
{
  imports = [ ../host.nix ];

  # For both.
  nixos-nspawn.imports = [ { time.timeZone = "Europe/Berlin"; } ];

  nixos-nspawn.containers = {
    one = {
      network.veth.zone = "pair";
      config = { };
    };
    two = {
      network.veth.zone = "pair";
      config = { };
    };
  };
}
