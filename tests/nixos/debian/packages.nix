# nixpkgs' packages, made of Debian's. A list is short for `{ debs = list; }`; farm.py says what the keys mean,
# `attributes` are what modules read from the package besides its path.
{ lib, tree }:

let
  bash = "${tree}/usr/bin/bash";
  # Units that modules list, of things that Debian's systemd is built without or has elsewhere.
  absentUnits = lib.listToAttrs (map (name: lib.nameValuePair "example/systemd/system/${name}" ''
    [Unit]
    Description=${name}, which Debian does not have
    DefaultDependencies=no
    [Service]
    Type=oneshot
    RemainAfterExit=yes
    ExecStart=${tree}/usr/bin/true
  '') [ "systemd-quotacheck.service" "systemd-update-utmp.service" "systemd-vconsole-setup.service" ]);
in
lib.mapAttrs (_: spec: if lib.isList spec then { debs = spec; } else spec) {
  acl = [ "acl" ];
  attr = [ "attr" ];
  bash = { debs = [ "bash" ]; links."bin/sh" = "usr/bin/bash"; attributes.shellPath = "/bin/bash"; };
  bash-completion = [ "bash-completion" ];
  bind = [ "bind9-host" "bind9-dnsutils" ];
  bzip2 = [ "bzip2" ];
  cacert = { debs = [ "ca-certificates" ]; links."etc/ssl/certs/ca-bundle.crt" = "etc/ssl/certs/ca-certificates.crt"; };
  coreutils = [ "coreutils" ];
  cpio = [ "cpio" ];
  curl = [ "curl" ];
  dash = { debs = [ "dash" ]; attributes.shellPath = "/bin/dash"; };
  dbus = {
    debs = [ "dbus" "dbus-bin" "dbus-daemon" "dbus-system-bus-common" "dbus-session-bus-common" "libdbus-1-3" ];
    links."libexec/dbus-daemon-launch-helper" = "usr/lib/dbus-1.0/dbus-daemon-launch-helper";
  };
  dhcpcd = [ "dhcpcd-base" ];
  diffutils = [ "diffutils" ];
  dnsmasq = [ "dnsmasq-base" ];
  e2fsprogs = [ "e2fsprogs" ];
  file = [ "file" ];
  findutils = [ "findutils" ];
  gawk = [ "gawk" ];
  getconf = { links."bin/getconf" = "usr/bin/getconf"; };
  getent = { links."bin/getent" = "usr/bin/getent"; };
  gitMinimal = [ "git" ];
  # A linter of nginx's configuration, which has no say here.
  gixy.texts."bin/gixy" = "#!${bash}\n";
  glibc = [ "libc6" "libc-bin" "nscd" ];
  glibcLocales = { links."lib/locale" = "usr/lib/locale"; };
  gnugrep = [ "grep" ];
  gnumake = [ "make" ];
  gnupatch = [ "patch" ];
  gnused = [ "sed" ];
  gnutar = [ "tar" ];
  gzip = [ "gzip" ];
  iana-etc = { links = { "etc/protocols" = "etc/protocols"; "etc/services" = "etc/services"; }; };
  iproute = [ "iproute2" ];
  iptables = [ "iptables" "libxtables12" ];
  iputils = [ "iputils-ping" ];
  jq = [ "jq" ];
  kbd.directories = [ "bin" "share" ];
  kmod = [ "kmod" ];
  less = [ "less" ];
  libcap = { debs = [ "libcap2-bin" "libcap2" ]; };
  libcap_ng = [ "libcap-ng0" ];
  libxslt = [ "xsltproc" ];
  linuxHeaders = { directories = [ "include" ]; };
  lndir.texts."bin/lndir" = ''
    #!${bash}
    # lndir [-silent] FROM [TO]: the directories of FROM, and a link to each of its files.
    [ "$1" != -silent ] || shift
    from=$1 to=''${2:-.}
    (cd -- "$from" && find . -mindepth 1 -type d -print0) | (cd -- "$to" && xargs -0r mkdir -p --)
    (cd -- "$from" && find . ! -type d -print0) | while IFS= read -r -d "" name; do
      name=''${name#./}
      [ -e "$to/$name" ] || [ -L "$to/$name" ] || ln -s -- "$from/$name" "$to/$name"
    done
  '';
  lsof = [ "lsof" ];
  mailcap.links."etc/nginx/mime.types" = "etc/nginx/mime.types";
  nano = [ "nano" ];
  ncurses = [ "ncurses-bin" "ncurses-base" ];
  netcat = [ "netcat-openbsd" ];
  nettools = [ "net-tools" "hostname" ];
  nftables = [ "nftables" ];
  nginx = {
    debs = [ "nginx" ];
    children.conf = "etc/nginx";
    attributes = { modules = [ ]; passthru.modules = [ ]; };
  };
  nix = {
    debs = [ "nix-bin" "nix-setup-systemd" ];
    links = {
      "lib/systemd/system/nix-daemon.service" = "usr/lib/systemd/system/nix-daemon.service";
      "lib/systemd/system/nix-daemon.socket" = "usr/lib/systemd/system/nix-daemon.socket";
    };
    without = [ "etc" ];
  };
  nothing = { };
  openresolv.links = { "bin/resolvconf" = "usr/sbin/resolvconf"; "lib/resolvconf" = "usr/lib/resolvconf"; };
  openssh = {
    debs = [ "openssh-server" "openssh-client" "openssh-sftp-server" ];
    links."libexec/sftp-server" = "usr/lib/openssh/sftp-server";
    without = [ "etc" ];
  };
  openssl = [ "openssl" ];
  pam = { debs = [ "libpam-modules" "libpam-modules-bin" "libpam-systemd" "libpam0g" ]; links."bin/unix_chkpwd.orig" = "usr/sbin/unix_chkpwd"; pname = "linux-pam"; without = [ "etc" ]; };
  perl = { debs = [ "perl" "perl-base" ]; attributes.libPrefix = "lib/perl5/site_perl"; };
  # The interpreter's wrapper knows where Debian's modules are.
  perlModule.directories = [ "lib/perl5/site_perl" ];
  polkit = { debs = [ "polkitd" "pkexec" ]; links."lib/polkit-1/polkitd" = "usr/lib/polkit-1/polkitd"; };
  procps = [ "procps" ];
  psmisc = [ "psmisc" ];
  python3 = {
    debs = [ "python3-minimal" "python3.13-minimal" ];
    attributes = rec { interpreter = "${tree}/usr/bin/python3"; executable = "python3"; };
  };
  rsync = [ "rsync" ];
  shadow = { debs = [ "passwd" "login" "util-linux" "uidmap" ]; attributes.shellPath = "/bin/nologin"; };
  socat = [ "socat" ];
  strace = [ "strace" ];
  su = { links."bin/su" = "usr/bin/su"; };
  sudo = { debs = [ "sudo" ]; without = [ "etc" ]; };
  systemd = {
    debs = [
      "systemd" "systemd-sysv" "systemd-container" "systemd-resolved" "systemd-coredump" "systemd-timesyncd" "udev" "libnss-systemd" "libnss-resolve"
      "libnss-mymachines" "libnss-myhostname" "libpam-systemd" "libsystemd0" "libudev1"
    ];
    # Units only come from where modules ask for them.
    without = [ "lib/systemd/system" "lib/systemd/user" "etc" "share/bash-completion" "share/zsh" ];
    children = {
      "example/systemd/system" = "usr/lib/systemd/system";
      "example/systemd/user" = "usr/lib/systemd/user";
      "example/tmpfiles.d" = "usr/lib/tmpfiles.d";
      "example/sysctl.d" = "usr/lib/sysctl.d";
    };
    texts = absentUnits // { "example/sysctl.d/50-default.conf" = ""; };
    attributes = { interfaceVersion = 2; withSelinux = false; };
  };
  # /usr/lib/systemd without what NixOS systems take from their own configuration.
  systemdRuntime = {
    children.systemd = "usr/lib/systemd";
    without = map (name: "systemd/${name}") [ "system" "user" "system-preset" "user-preset" "system.conf.d" "user.conf.d" "journald.conf.d" "resolved.conf.d" "sshd" ];
  };
  tcpdump = [ "tcpdump" ];
  time = [ "time" ];
  tzdata = [ "tzdata" ];
  utillinux = [ "util-linux" "mount" "bsdextrautils" "bsdutils" "fdisk" "login" ];
  which.links."bin/which" = "usr/bin/which.debianutils";
  xz = [ "xz-utils" ];
  zstd = [ "zstd" ];

  cc = {
    texts = lib.genAttrs [ "bin/cc" "bin/gcc" ] (_: ''
      #!${bash}
      exec ${tree}/usr/bin/gcc --sysroot=${tree} -B${tree}/usr/bin -Wl,--no-as-needed "$@" \
        -Wl,--dynamic-linker="$(cat ${tree}/nix-support/loader)" -Wl,--disable-new-dtags -Wl,-rpath,"$(cat ${tree}/nix-support/library-path)"
    '');
    debs = [ "binutils" ];
  };
}
