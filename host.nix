# The module for a host of containers: `imports = [ ./host.nix ];` in a NixOS configuration.
{
  imports = [ ./pytest_nspawn/nixos/modules/host.nix ];
}
