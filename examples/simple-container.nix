# A plain container with a package in it.
{
  imports = [ ../host.nix ];

  nixos-nspawn.containers.simple.config =
    { pkgs, ... }:
    {
      environment.systemPackages = [ pkgs.jq ];
    };
}
