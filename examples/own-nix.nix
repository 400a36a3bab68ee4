# A container with a Nix daemon, a store and a database of its own.
{
  imports = [ ../host.nix ];

  nixos-nspawn.containers.builder = {
    store = "writable";
    # What it builds is kept in memory with the rest of its root.
    rootSize = "2G";
    config =
      { lib, options, ... }:
      {
        # The container is confined already; a sandbox for builds would want more than it may do.
        nix = if options.nix ? settings then { settings.sandbox = false; } else { useSandbox = lib.mkForce false; };
      };
  };
}
