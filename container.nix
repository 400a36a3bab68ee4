# The module for a system that boots in a container: `imports = [ ./container.nix ];` in a NixOS configuration.
{
  imports = [ ./pytest_nspawn/nixos/modules/container.nix ];
}
