# The examples of the modules: each builds, and its containers run in a virtual machine.
{ pkgs, self }:

let
  inherit (pkgs) lib;
  examples = ../examples;
  files = lib.filter (lib.hasSuffix ".nix") (lib.attrNames (builtins.readDir examples));
  # systemd has credentials since 247.
  canRun = name: name != "credentials" || lib.versionAtLeast pkgs.systemd.version "247";
  names = lib.filter canRun (map (lib.removeSuffix ".nix") files);

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
# Not where there is only a part of NixOS: the stand-in of the tests.
lib.optionalAttrs (builtins.pathExists (pkgs.path + "/nixos/modules/module-list.nix")) (
  lib.listToAttrs (
    lib.concatMap (name: [
      (lib.nameValuePair "module-${name}" (systemOf name).system.build.toplevel)
      (lib.nameValuePair "module-${name}-vm" (inVm name))
    ]) names
  )
)
