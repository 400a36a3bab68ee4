# `nix develop`: the tools that ./dev would set up elsewhere. Not newuidmap: it has to be the machine's, which is setuid.
{ pkgs, ... }:

let
  python = import ./environment.nix { inherit pkgs; } (
    set: with set; [
      mypy
      types-pexpect
    ]
  );
in
if import ./plugin.nix { inherit pkgs; } == null then
  null
else
  {
    default = pkgs.mkShell {
      nativeBuildInputs = [
        python
        pkgs.curl
        pkgs.iproute2
        pkgs.nix
        pkgs.ruff
        pkgs.strace
        pkgs.systemd
        pkgs.util-linux
      ];
      # ./dev makes no environment of its own then.
      PYTEST_NSPAWN_DEV_SHELL = 1;
      # The checkout comes before the package, whose entry point has pytest load the plugin.
      shellHook = ''
        export PYTHONPATH=$PWD''${PYTHONPATH:+:$PYTHONPATH}
      '';
    };
  }
