# Debian's packages under the names that nixpkgs has had for them, and what modules ask of packages besides a path.
{ debian, noSource, wrapper }:

self: super:

let
  inherit (super) lib;
  p = debian.packages;
  # Packages that modules list for machines of metal: no files, and no harm in a container.
  nothing = lib.genAttrs [ "audit" "bcache-tools" "dmraid" "dosfstools" "fuse" "fuse3" "kexectools" "lvm2" "mdadm" "mkinitcpio" "nix-info" "nix-bash-completions" "thin-provisioning-tools" ] (_: p.nothing);
  perlModules = lib.genAttrs [ "FileSlurp" "NetDBus" "XMLParser" "XMLTwig" "JSON" "ConfigIniFiles" "DBI" "DBDSQLite" "StringShellQuote" ] (_: p.perlModule);
  perl = p.perl // { withPackages = _: p.perl; pkgs = perlModules; buildEnv = p.perl; };
in
removeAttrs p [ "cc" "perlModule" "lndir" "nothing" "python3" "systemdRuntime" ]
// nothing // {
  path = wrapper;
  debianPackages = debian.farm;
  debianTree = debian.tree // { systemdRuntime = "${p.systemdRuntime}/systemd"; };
  fetchurl = noSource;
  fetchgit = noSource;
  fetchzip = noSource;

  bind = p.bind // { host = p.bind; dnsutils = p.bind; };
  bashInteractive = p.bash;
  bashInteractive_5 = p.bash;
  coreutils-full = p.coreutils;
  dbus = p.dbus // { daemon = p.dbus; };
  dbus_daemon = p.dbus;
  git = p.gitMinimal;
  glibcLocales = p.glibcLocales // { override = _: p.glibcLocales; };
  iproute2 = p.iproute;
  iptables-nftables-compat = p.iptables;
  libressl = p.openssl // { nc = p.netcat; };
  linux-pam = p.pam;
  netcat-openbsd = p.netcat;
  netcat-gnu = p.netcat;
  nginxStable = p.nginx;
  nginxMainline = p.nginx;
  nixStable = p.nix;
  nixUnstable = p.nix;
  nixFlakes = p.nix;
  inherit perl;
  perl530 = perl;
  perlPackages = perlModules;
  perl530Packages = perlModules;
  shadow = p.shadow // { su = p.su; };
  util-linux = p.utillinux;
  util-linuxMinimal = p.utillinux;
  udev = p.systemd;
  libudev = p.systemd;
  xorg = super.xorg // { inherit (p) lndir; xauth = p.nothing; };
  # Its packages are for this Python; of nixpkgs' own there is none.
  python3 = super.python3.override { self = self.python3; } // p.python3;
  python3Minimal = p.python3;
}
