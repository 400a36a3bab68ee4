# What the types cannot say about containers, and what to do about it.
{ config, lib, ... }:
let
  inherit (lib) concatLists mapAttrsToList;

  cfg = config.nixos-nspawn;

  systemdVersion = lib.getVersion config.systemd.package;

  inherit (import ./containers.nix { inherit lib; }) isName;

  option = name: "nixos-nspawn.containers.${name}";

  isReference = path: !lib.isString path || builtins.hasContext path;

  checks =
    name: container:
    let
      inherit (container.network) veth;
    in
    [
      {
        assertion = (container.config == null) != (container.path == null);
        message =
          if container.path == null then
            "${option name} has no system: give it a `config`, a NixOS module, or the `path` of a built system."
          else
            "${option name} has both `config` and `path`: leave one out.";
      }
      {
        assertion = isName name;
        message = ''
          ${option name}: "${name}" cannot be the name of a machine. Use letters, digits and dashes, at most 63; begin with a letter, end with no dash.
        '';
      }
      {
        assertion = veth.zone == null || builtins.match "[a-zA-Z0-9_.-]{1,12}" veth.zone != null;
        message = ''
          ${option name}.network.veth.zone: the bridge of zone "${toString veth.zone}" would be vz-${toString veth.zone}, which is no name of an interface. Use at most 12 letters, digits and dashes.
        '';
      }
      {
        assertion = veth.zone == null || veth.enable;
        message = "${option name}: a container in a zone has a link to it: leave out `network.veth.zone`, or set `network.veth.enable = true`.";
      }
      {
        assertion = container.credentials == { } || lib.versionAtLeast systemdVersion "247";
        message = "${option name}.credentials: systemd ${systemdVersion} has no credentials, they came with 247. Bind a file with `binds` instead.";
      }
      {
        assertion = container.store == "host" || container.path == null || isReference container.path;
        message = ''
          ${option name}: store = "${container.store}" needs to know what `path` refers to, and a text does not tell. Give the derivation itself, such as system.build.toplevel, or use store = "host".
        '';
      }
    ]
    ++ map (path: {
      assertion = lib.hasPrefix "/" path && lib.hasPrefix "/" container.binds.${path}.hostPath;
      message = "${option name}.binds: \"${path}\" and its hostPath \"${
        container.binds.${path}.hostPath
      }\" must both begin with a slash.";
    }) (builtins.attrNames container.binds);

  # What the container's own configuration has to say, under its name.
  inherited =
    name: container:
    lib.optionals (container.config != null && container.path == null) (
      map (
        check:
        check
        // {
          message = "${option name}: ${check.message}";
        }
      ) container.config.assertions
    );

  warnings =
    name: container:
    lib.optionals (container.config != null && container.path == null) (
      map (warning: "${option name}: ${warning}") container.config.warnings
    );
in
{
  assertions =
    concatLists (mapAttrsToList checks cfg.containers)
    ++ concatLists (mapAttrsToList inherited cfg.containers)
    ++ lib.optional (cfg.containers != { }) {
      # Older versions make a directory of the whole of `systemd.nspawn`, newer ones single files.
      assertion = !(config.environment.etc ? "systemd/nspawn");
      message = ''
        `systemd.nspawn` and `nixos-nspawn.containers` both make /etc/systemd/nspawn in this version of nixpkgs. Write the former as files: environment.etc."systemd/nspawn/NAME.nspawn".text.
      '';
    };

  warnings = concatLists (mapAttrsToList warnings cfg.containers);
}
