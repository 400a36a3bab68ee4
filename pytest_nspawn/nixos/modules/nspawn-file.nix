# The .nspawn file of one container: what differs from the command line of systemd's systemd-nspawn@.service.
{
  lib,
  pkgs,
  systemdVersion,
}:
{
  name,
  container,
  toplevel,
}:
let
  inherit (lib) concatStringsSep mapAttrsToList optional;

  escape = lib.replaceStrings [ "\\" ":" ] [ "\\\\" "\\:" ];

  bind =
    path: bind:
    "${if bind.readOnly then "BindReadOnly" else "Bind"}=${escape bind.hostPath}:${escape path}"
    + lib.optionalString (bind.options != [ ]) ":${concatStringsSep "," bind.options}";

  privateUsers =
    if container.privateUsers == true then
      "pick"
    else if container.privateUsers == false then
      "no"
    else
      container.privateUsers;

  # The root is empty: giving it to the container's users costs nothing, and needs no idmapped mount.
  ownership =
    if privateUsers == "no" || privateUsers == "identity" then
      [ ]
    else if lib.versionAtLeast systemdVersion "249" then
      [ "PrivateUsersOwnership=chown" ]
    else
      [ "PrivateUsersChown=yes" ];

  veth = container.network.veth;

  network =
    if !veth.enable then
      [
        "Private=no"
        "VirtualEthernet=no"
      ]
    else if veth.zone != null then
      [ "Zone=${veth.zone}" ]
    else
      [ "VirtualEthernet=yes" ];

  text = concatStringsSep "\n" (
    [
      "# Container ${name}, from nixos-nspawn.containers."
      "[Exec]"
      # Stage 2 has to run, so its script is PID 1 until it becomes systemd.
      "Boot=no"
      "Parameters=${toplevel}/init"
      "KillSignal=SIGRTMIN+3"
      "NotifyReady=yes"
      "PrivateUsers=${privateUsers}"
      "LinkJournal=try-guest"
      "Timezone=off"
      "ResolvConf=${if veth.enable then "off" else "copy-host"}"
      ""
      "[Network]"
    ]
    ++ network
    ++ [
      ""
      "[Files]"
    ]
    ++ ownership
    ++ mapAttrsToList bind container.binds
    # Unless it is bound in another way, with options.
    ++ optional (container.store == "host" && !(container.binds ? "/nix/store")) "BindReadOnly=/nix/store"
    ++ [ "" ]
  );

  closure = pkgs.closureInfo { rootPaths = [ toplevel ]; };
in
if container.store == "host" then
  { inherit text; }
else
  {
    source = pkgs.runCommand "${name}.nspawn" { inherit closure text; } (
      ''
        printf '%s' "$text" > "$out"
        while read -r path; do
          echo "BindReadOnly=$path"
        done < "$closure/store-paths" >> "$out"
      ''
      + lib.optionalString (container.store == "writable") ''
        echo "BindReadOnly=$closure/registration:/nix/registration" >> "$out"
      ''
    );
  }
