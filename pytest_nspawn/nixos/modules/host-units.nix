# Each container as an instance of systemd's own systemd-nspawn@.service.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mapAttrs' mapAttrsToList nameValuePair;
  inherit (import ./containers.nix { inherit lib; }) toplevelOf;

  cfg = config.nixos-nspawn;

  nspawnFile = import ./nspawn-file.nix {
    inherit lib pkgs;
    systemdVersion = lib.getVersion config.systemd.package;
  };
  rootOf = import ./root.nix { inherit lib pkgs; };

  etcName = name: "systemd/nspawn/${name}.nspawn";

  # One word of ExecStart=, whatever is in it.
  quote = word: lib.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON word);

  options =
    container:
    mapAttrsToList (name: path: "--load-credential=${name}:${path}") container.credentials ++ container.extraOptions;

  # systemd's template under the name of the instance. So switch-to-configuration knows the instance by a file of
  # its own: it stops a container that is gone, instead of starting the bare template under its name.
  instance =
    name:
    pkgs.runCommand "systemd-nspawn-${name}" { } ''
      mkdir -p "$out/lib/systemd/system"
      cp ${config.systemd.package}/example/systemd/system/systemd-nspawn@.service \
        "$out/lib/systemd/system/systemd-nspawn@${name}.service"
    '';

  service =
    name: container:
    let
      root = rootOf { inherit name container; };
    in
    nameValuePair "systemd-nspawn@${name}" {
      wantedBy = lib.optional container.autoStart "machines.target";
      requires = [ "nixos-nspawn-image-${name}.service" ];
      after = [ "nixos-nspawn-image-${name}.service" ];
      inherit (container) restartIfChanged;
      restartTriggers = [ config.environment.etc.${etcName name}.source ];
      # systemd-nspawn looks for the container's systemd in /usr/lib, finds none, and would choose cgroup v1.
      environment.SYSTEMD_NSPAWN_UNIFIED_HIERARCHY = "1";
      serviceConfig = {
        ExecStartPre = "${root.prepare}";
        ExecStart = [
          ""
          (lib.concatStringsSep " " (
            [
              "${config.systemd.package}/bin/systemd-nspawn"
              "--quiet"
              "--keep-unit"
              "--settings=override"
              "--machine=%i"
            ]
            ++ map quote (options container)
          ))
        ];
        ExecStopPost = "${root.remove}";
      };
    };

  # machinectl starts only what it has an image of. The directory goes with the container's configuration.
  image =
    name: _:
    nameValuePair "nixos-nspawn-image-${name}" {
      description = "Image of container ${name}";
      wantedBy = [ "machines.target" ];
      before = [ "machines.target" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        RuntimeDirectory = "machines/${name}";
        ExecStart = "${pkgs.coreutils}/bin/true";
      };
    };
in
{
  environment.etc = mapAttrs' (
    name: container:
    nameValuePair (etcName name) (nspawnFile {
      inherit name container;
      toplevel = toplevelOf container;
    })
  ) cfg.containers;

  systemd = lib.mkIf (cfg.containers != { }) {
    packages = map instance (builtins.attrNames cfg.containers);
    services = mapAttrs' service cfg.containers // mapAttrs' image cfg.containers;
    targets.multi-user.wants = [ "machines.target" ];
  };
}
