"""The command `nixos-nspawn`: NixOS containers by hand, kept where systemd and Nix keep theirs."""
