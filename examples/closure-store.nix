# A container that sees the store paths that it needs, and no others of the host.
{
  imports = [ ../host.nix ];

  nixos-nspawn.containers.closed = {
    store = "closure";
    config = { };
  };
}
