# The options of a container's own configuration.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.nixos-nspawn.container = {
    veth = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = ''
        Whether the container has a network of its own, with the interface `host0` leading to the host. Then
        systemd-networkd configures `host0`, and systemd-resolved resolves names. Without it the container
        shares the network of the host, and configures none.

        A host that evaluates the container sets it after `network.veth.enable`.
      '';
    };

    store = mkOption {
      type = types.enum [
        "host"
        "closure"
        "writable"
      ];
      default = "host";
      example = "writable";
      description = ''
        What the store of the container is: all of the host's, only the paths that the container needs, or
        these in a store of its own that the container may write to. In the last case a Nix daemon runs in the
        container, with a database of its own.

        A host that evaluates the container sets it after `store`.
      '';
    };
  };
}
