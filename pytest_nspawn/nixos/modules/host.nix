# Declarative, ephemeral NixOS containers under systemd-nspawn: `nixos-nspawn.containers`.
#
# Options that the given nixpkgs lacks are left out: each `options ? name` says which.
{
  imports = [
    ./host-checks.nix
    ./host-network.nix
    ./host-options.nix
    ./host-units.nix
  ];
}
