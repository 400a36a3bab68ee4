# The system itself: its init, its activation, and the switch to it.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkOption types;
  cfg = config.system;
  busybox = "${pkgs.machine}/usr/bin/busybox";
  order = [
    "users"
    "etc"
  ];
  scripts = map (name: cfg.activationScripts.${name}) order ++ lib.attrValues (removeAttrs cfg.activationScripts order);

  # The tree's programs are linked against /usr: it is mounted there before any of them runs.
  init = ''
    #!${busybox} sh
    export PATH=${pkgs.busybox}/bin
    set -e
    mkdir -p /usr /run /tmp /var/log /var/lib /var/empty /root /home /etc
    chmod 1777 /tmp
    mount -o bind,ro ${pkgs.machine}/usr /usr
    for name in bin sbin lib lib64; do [ -L /$name ] || ln -s usr/$name /$name; done
    TOPLEVEL/activate
    ${config.boot.postBootCommands}
    exec /usr/lib/systemd/systemd "$@"
  '';
  activate = ''
    #!${busybox} sh
    PATH=${pkgs.busybox}/bin
    set -e
    ln -sfn TOPLEVEL /run/current-system
    ${lib.concatStringsSep "\n" scripts}
  '';
  # test, switch, boot, dry-activate: what a running systemd has to be told of a new system.
  switch = ''
    #!${busybox} sh
    PATH=${pkgs.busybox}/bin:/usr/bin:/usr/sbin
    set -e
    case ''${1-} in
      test | switch) ;;
      boot | dry-activate) exit 0 ;;
      *) echo "usage: switch-to-configuration test|switch|boot|dry-activate" >&2; exit 2 ;;
    esac
    old=$(readlink -f /etc/systemd/system)
    new=$(readlink -f TOPLEVEL/units)
    for unit in $(cd $old && ls -d *.service *.socket *.timer *.path 2>/dev/null || true); do
      [ -e $new/$unit ] || systemctl stop $unit
    done
    TOPLEVEL/activate
    systemctl daemon-reload
    systemd-tmpfiles --create
    for unit in $(cd $new && ls -d *.service *.socket *.timer *.path 2>/dev/null || true); do
      if [ -e $old/$unit ]; then
        cmp -s $old/$unit $new/$unit || grep -q X-RestartIfChanged=false $new/$unit || systemctl try-restart $unit
      fi
    done
    systemctl start default.target
    for unit in $new/multi-user.target.wants/*; do
      [ ! -e $unit ] || systemctl start $(basename $unit)
    done
  '';

  toplevel =
    pkgs.runCommand "nixos-system-${config.networking.hostName}-${lib.version}"
      {
        inherit init activate switch;
        passAsFile = [
          "init"
          "activate"
          "switch"
        ];
      }
      ''
        mkdir -p $out/bin
        for file in init activate; do
          eval path=\$''${file}Path
          sed "s|TOPLEVEL|$out|g" $path >$out/$file
          chmod +x $out/$file
        done
        sed "s|TOPLEVEL|$out|g" $switchPath >$out/bin/switch-to-configuration
        chmod +x $out/bin/switch-to-configuration
        ln -s ${cfg.build.etc}/etc $out/etc
        ln -s ${cfg.build.units} $out/units
        ln -s ${cfg.path} $out/sw
        mkdir $out/specialisation
        ${lib.concatStrings (lib.mapAttrsToList (name: system: "ln -s ${system} $out/specialisation/${name}\n") cfg.specialisations)}
      '';
  failed = map (each: each.message) (lib.filter (each: !each.assertion) config.assertions);
in
{
  options.system = {
    build = mkOption {
      type = types.lazyAttrsOf types.raw;
      default = { };
      description = "What the system is built from.";
    };
    path = mkOption {
      type = types.package;
      description = "Programs in everybody's path.";
    };
    stateVersion = mkOption {
      type = types.str;
      default = lib.version;
      description = "Version that the machine's state is of.";
    };
    activationScripts = mkOption {
      type = types.attrsOf types.lines;
      default = { };
      description = "What is done to the root before systemd starts, and on a switch.";
    };
    specialisations = mkOption {
      type = types.attrsOf types.package;
      default = { };
      description = "Systems by the name of their specialisation.";
    };
  };

  config.system.build.toplevel =
    if failed == [ ] then toplevel else throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (each: "- ${each}") failed}";
}
