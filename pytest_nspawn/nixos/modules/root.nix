# The root of a container: a tmpfs on /run/machines/NAME, made when it starts and gone when it stops.
{ lib, pkgs }:
{ name, container }:
let
  # What systemd-nspawn makes for a bind belongs to the host's root; what is there before, to the container's.
  parents = lib.unique (
    [ "/nix/var" ]
    ++ lib.optional (container.store == "writable") "/nix/store"
    ++ map builtins.dirOf (builtins.attrNames container.binds)
  );

  tools = lib.makeBinPath [
    pkgs.coreutils
    # Its name before 20.09's release was another.
    (pkgs.util-linux or pkgs.utillinux)
  ];

  # The container's machine ID is derived from the host's: the same at each start, so that its journal and its
  # DHCP lease are found again, and another on each host.
  setup = ''
    set -eu
    export PATH=${tools}
    root=/run/machines/${name}
    machine_id=$(printf '%s' "$(cat /etc/machine-id)/nixos-nspawn/${name}" | sha256sum | head -c 32)
  '';

  unmount = ''
    # Of a run that was killed both are left, and systemd-nspawn would refuse to start again.
    for path in "$root" /run/systemd/nspawn/unix-export/${name}; do
      while mountpoint --quiet "$path"; do
        umount --lazy "$path"
      done
    done
  '';
in
{
  prepare = pkgs.writeShellScript "prepare-${name}" ''
    ${setup}
    ${unmount}
    mkdir -p "$root"
    mount -t tmpfs -o mode=0755,size=${lib.escapeShellArg container.rootSize} nixos-nspawn "$root"
    # systemd-nspawn takes a tree without /usr for no operating system.
    mkdir -p "$root/usr" "$root/etc" ${lib.escapeShellArgs (map (path: "/run/machines/${name}${path}") parents)}
    echo "$machine_id" > "$root/etc/machine-id"
  '';

  remove = pkgs.writeShellScript "remove-${name}" ''
    ${setup}
    ${unmount}
    # The link to the journal that went with the root.
    if [ -L "/var/log/journal/$machine_id" ]; then
      rm "/var/log/journal/$machine_id"
    fi
  '';
}
