# What a NixOS system over Debian's programs needs besides them, and no module of the tree's gives it.
{ config, lib, options, pkgs, ... }:

let
  # Below every definition of a profile or a user, above the options' own defaults.
  off = paths: lib.mkMerge (map (path: lib.optionalAttrs (lib.hasAttrByPath path options) (lib.setAttrByPath path (lib.mkOverride 1400 false))) paths);
  debian = pkgs.debianTree;
in
lib.mkMerge [
  (off [
    # What would need packages that Debian's tree lacks, and no container needs.
    [ "documentation" "enable" ]
    [ "documentation" "nixos" "enable" ]
    [ "fonts" "fontconfig" "enable" ]
    [ "networking" "useDHCP" ] # the unit is for an older dhcpcd
    [ "programs" "command-not-found" "enable" ]
    [ "security" "polkit" "enable" ]
    [ "security" "rngd" "enable" ]
    [ "xdg" "icons" "enable" ]
    [ "xdg" "mime" "enable" ]
    [ "xdg" "sounds" "enable" ]
  ])
  {
    # Debian's nginx has them in /var/lib/nginx, which the unit may not write to.
    services.nginx.appendHttpConfig = ''
      ${lib.concatMapStringsSep "\n" (kind: "${kind}_temp_path /var/cache/nginx/${kind};") [ "client_body" "proxy" "fastcgi" "uwsgi" "scgi" ]}
    '';
    # Newer networkd leases no address, nor takes one for itself from a pool, before it is told that its state will
    # last; trees older than that lack the unit that tells it.
    systemd.services.systemd-networkd-persistent-storage = lib.mkIf config.systemd.network.enable {
      wantedBy = [ "systemd-networkd.service" ];
      after = [ "systemd-networkd.service" ];
      bindsTo = [ "systemd-networkd.service" ];
      before = [ "shutdown.target" ];
      conflicts = [ "shutdown.target" ];
      unitConfig.DefaultDependencies = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        User = "systemd-network";
        StateDirectory = "systemd/network";
        ExecStart = "${pkgs.systemd}/bin/networkctl persistent-storage yes";
        ExecStop = "${pkgs.systemd}/bin/networkctl persistent-storage no";
      };
    };
    # What Debian's packages or newer modules make: sshd's empty directory, and that of the socket of newer Nix.
    systemd.tmpfiles.rules = [
      "d /run/sshd 0755 root root - -"
      "d /nix/var/nix/daemon-socket 0755 root root - -"
    ];
    # `su -` of util-linux, which nixpkgs has from elsewhere, asks PAM for this service.
    security.pam.services.su-l.rootOK = true;
    # Debian's programs have these paths built in: /usr holds just them, and still nothing for a user's PATH.
    system.activationScripts.debianPaths = lib.stringAfter [ "stdio" ] ''
      mkdir -p /usr/lib /usr/bin /usr/sbin /usr/share
      for path in ${debian}/usr/{lib/*-linux-gnu,lib/locale,lib/openssh,lib/git-core,lib/ssl,lib/resolvconf,libexec,bin/mount,bin/umount,sbin/nologin,sbin/sulogin}; do
        ln -sfnT "$path" "''${path#${debian}}"
      done
      ln -sfnT ${debian.systemdRuntime} /usr/lib/systemd
      ln -sfnT /run/wrappers/bin/unix_chkpwd /usr/sbin/unix_chkpwd
      ln -sfnT /etc/dbus-1 /usr/share/dbus-1
      ln -sfnT /run/current-system/sw/share/polkit-1 /usr/share/polkit-1
    '';
  }
]
