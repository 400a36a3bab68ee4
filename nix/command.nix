# The command `nixos-nspawn`, with the programs that it calls. Nix is the machine's own: it has to fit its daemon.
{
  lib,
  makeWrapper,
  python3,
  runCommand,
  systemd,
  pytest-nspawn ? python3.pkgs.pytest-nspawn,
}:

runCommand "nixos-nspawn-${pytest-nspawn.version}"
  {
    nativeBuildInputs = [ makeWrapper ];
    meta = {
      description = "Makes containers of NixOS configurations";
      mainProgram = "nixos-nspawn";
      inherit (pytest-nspawn.meta) license platforms;
    };
  }
  ''
    makeWrapper ${pytest-nspawn}/bin/nixos-nspawn $out/bin/nixos-nspawn \
      --suffix PATH : ${lib.makeBinPath [ systemd ]}
  ''
