# The examples of the modules: each builds, and its containers run in a virtual machine.
{ pkgs, self }:

let
  inherit (pkgs) lib;
  examples = ../examples;
  names = map (lib.removeSuffix ".nix") (lib.filter (lib.hasSuffix ".nix") (lib.attrNames (builtins.readDir examples)));

  # What every system has to say, and an example need not.
  machine = {
    boot.loader.grub.enable = false;
    fileSystems."/" = {
      device = "/dev/vda";
      fsType = "ext4";
    };
    system.stateVersion = lib.trivial.release;
  };
  systemOf =
    name:
    (import (pkgs.path + "/nixos/lib/eval-config.nix") {
      inherit (pkgs.stdenv.hostPlatform) system;
      modules = [
        (examples + "/${name}.nix")
        machine
        { nixpkgs.pkgs = pkgs; }
      ];
    }).config;

  inVm =
    name:
    (pkgs.testers.runNixOSTest or pkgs.nixosTest) {
      name = "module-${name}";
      nodes.machine = {
        imports = [ (examples + "/${name}.nix") ];
        virtualisation.memorySize = 2048;
      };
      testScript = ''
        machine.wait_for_unit("multi-user.target")
      ''
      + lib.concatMapStrings (container: ''
        machine.wait_for_unit("systemd-nspawn@${container}.service")
        machine.wait_until_succeeds("systemctl --machine=${container} is-active multi-user.target")
      '') (lib.attrNames (systemOf name).nixos-nspawn.containers);
    };
in
lib.optionalAttrs (builtins.pathExists examples) (
  lib.listToAttrs (
    lib.concatMap (name: [
      (lib.nameValuePair "module-${name}" (systemOf name).system.build.toplevel)
      (lib.nameValuePair "module-${name}-vm" (inVm name))
    ]) names
  )
)
