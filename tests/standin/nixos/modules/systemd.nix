{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkOption types;
  systemdText = import ../text.nix { inherit lib; };
  cfg = config.systemd;

  words =
    description:
    mkOption {
      type = types.listOf types.str;
      default = [ ];
      inherit description;
    };
  section =
    description:
    mkOption {
      type = types.attrsOf types.unspecified;
      default = { };
      inherit description;
    };
  common = {
    enable = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the unit may run; one that may not is masked.";
    };
    description = mkOption {
      type = types.str;
      default = "";
      description = "What the unit is.";
    };
    wantedBy = words "Units that want it.";
    requiredBy = words "Units that require it.";
    wants = words "Units that it wants.";
    requires = words "Units that it requires.";
    bindsTo = words "Units that it stops with.";
    partOf = words "Units that it stops and restarts with.";
    after = words "Units that start before it.";
    before = words "Units that start after it.";
    conflicts = words "Units that it stops.";
    onFailure = words "Units that start when it fails.";
    documentation = words "Where it is described.";
    restartTriggers = mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
      description = "Values whose change restarts it.";
    };
    unitConfig = section "Section [Unit].";
    startLimitIntervalSec = mkOption {
      type = types.nullOr types.int;
      default = null;
      description = "Seconds in which starts are counted.";
    };
    startLimitBurst = mkOption {
      type = types.nullOr types.int;
      default = null;
      description = "Starts in that time.";
    };
  };
  script =
    description:
    mkOption {
      type = types.lines;
      default = "";
      inherit description;
    };
  service = {
    options = common // {
      serviceConfig = section "Section [Service].";
      environment = mkOption {
        type = types.attrsOf types.unspecified;
        default = { };
        description = "Variables.";
      };
      path = mkOption {
        type = types.listOf types.unspecified;
        default = [ ];
        description = "Packages in its path.";
      };
      startAt = mkOption {
        type = types.either types.str (types.listOf types.str);
        default = [ ];
        description = "Times at which it starts.";
      };
      restartIfChanged = mkOption {
        type = types.bool;
        default = true;
        description = "Whether a new system restarts it.";
      };
      script = script "Its main process.";
      preStart = script "What runs before.";
      postStart = script "What runs after the start.";
      preStop = script "What runs before the stop.";
      postStop = script "What runs after.";
    };
  };
  unitOf = name: sectionName: description: mkOption {
    type = types.attrsOf (types.submodule { options = common // { ${name} = section "Section [${sectionName}]."; }; });
    default = { };
    inherit description;
  };

  path = packages: lib.concatMapStringsSep ":" (package: "${package}/bin:${package}/sbin") packages;
  run = name: text: pkgs.writeScript (builtins.replaceStrings [ "@" ] [ "-" ] name) "#!/bin/bash -e\n${text}\n";
  unitSection =
    unit:
    lib.filterAttrs (_: value: value != [ ] && value != "") {
      Description = unit.description;
      Wants = lib.concatStringsSep " " unit.wants;
      Requires = lib.concatStringsSep " " unit.requires;
      BindsTo = lib.concatStringsSep " " unit.bindsTo;
      PartOf = lib.concatStringsSep " " unit.partOf;
      After = lib.concatStringsSep " " unit.after;
      Before = lib.concatStringsSep " " unit.before;
      Conflicts = lib.concatStringsSep " " unit.conflicts;
      OnFailure = lib.concatStringsSep " " unit.onFailure;
      Documentation = lib.concatStringsSep " " unit.documentation;
      StartLimitIntervalSec = unit.startLimitIntervalSec;
      StartLimitBurst = unit.startLimitBurst;
      X-Restart-Triggers = map toString unit.restartTriggers;
    }
    // unit.unitConfig;

  serviceText =
    name: unit:
    let
      hook = key: suffix: lib.optionalAttrs (unit.${key} != "") { ${suffix} = run "unit-${name}-${key}" unit.${key}; };
      environment = {
        PATH = lib.optionalString (unit.path != [ ]) "${path unit.path}:" + "/run/current-system/sw/bin:/usr/sbin:/usr/bin";
      }
      // lib.filterAttrs (_: value: value != null) unit.environment;
    in
    systemdText {
      Unit = unitSection unit // lib.optionalAttrs (!unit.restartIfChanged) { X-RestartIfChanged = false; };
      Service =
        {
          Environment = lib.mapAttrsToList (key: value: builtins.toJSON "${key}=${toString value}") environment;
        }
        // hook "script" "ExecStart"
        // hook "preStart" "ExecStartPre"
        // hook "postStart" "ExecStartPost"
        // hook "preStop" "ExecStop"
        // hook "postStop" "ExecStopPost"
        // unit.serviceConfig;
    };
  kinds = {
    sockets = {
      name = "socketConfig";
      section = "Socket";
      suffix = "socket";
    };
    timers = {
      name = "timerConfig";
      section = "Timer";
      suffix = "timer";
    };
    paths = {
      name = "pathConfig";
      section = "Path";
      suffix = "path";
    };
    slices = {
      name = "sliceConfig";
      section = "Slice";
      suffix = "slice";
    };
  };

  # name -> { text, unit }
  units =
    lib.mapAttrs' (name: unit: lib.nameValuePair "${name}.service" { inherit unit; text = serviceText name unit; }) cfg.services
    // lib.mapAttrs' (name: unit: lib.nameValuePair "${name}.target" { inherit unit; text = systemdText { Unit = unitSection unit; }; }) cfg.targets
    // lib.listToAttrs (
      map (
        unit:
        lib.nameValuePair unit.unitName {
          inherit unit;
          text = systemdText {
            Unit = unitSection unit;
            Mount = {
              What = unit.what;
              Where = unit.where;
              Type = unit.type;
              Options = unit.options;
            } // unit.mountConfig;
          };
        }
      ) cfg.mounts
    )
    // lib.concatMapAttrs (
      kind: how:
      lib.mapAttrs' (
        name: unit:
        lib.nameValuePair "${name}.${how.suffix}" {
          inherit unit;
          text = systemdText {
            Unit = unitSection unit;
            ${how.section} =
              lib.optionalAttrs (unit ? listenStreams && unit.listenStreams != [ ]) { ListenStream = unit.listenStreams; }
              // lib.optionalAttrs (unit ? listenDatagrams && unit.listenDatagrams != [ ]) { ListenDatagram = unit.listenDatagrams; }
              // unit.${how.name};
          };
        }
      ) cfg.${kind}
    ) kinds;
  # Upstream's targets take links only, no text of ours.
  isUpstream = name: each: lib.hasSuffix ".target" name && each.unit.description == "" && each.unit.unitConfig == { };
  linked = name: each: lib.optionals each.unit.enable (
    map (target: "${target}.wants/${name}") each.unit.wantedBy ++ map (target: "${target}.requires/${name}") each.unit.requiredBy
  );
  quoted = path: "$out/${lib.escapeShellArg path}";
  systemUnits = pkgs.runCommand "system-units" { } (
    "mkdir -p $out\n"
    + lib.concatStrings (
      lib.mapAttrsToList (
        name: each:
        let
          safe = builtins.replaceStrings [ "@" "\\" ] [ "-" "-" ] name;
        in
        lib.optionalString (!isUpstream name each) (
          if each.unit.enable then
            "ln -s ${pkgs.writeText "unit-${safe}" each.text} ${quoted name}\n"
          else
            "ln -s /dev/null ${quoted name}\n"
        )
        + lib.concatMapStrings (link: ''
          mkdir -p "$(dirname ${quoted link})"
          ln -s ${if isUpstream name each then "/usr/lib/systemd/system/${name}" else "../${name}"} ${quoted link}
        '') (linked name each)
      ) units
    )
    + lib.concatStrings (
      lib.mapAttrsToList (
        directory: names:
        lib.concatMapStrings (name: ''
          mkdir -p $out/${directory}
          ln -sf /usr/lib/systemd/system/${name} $out/${directory}/${name}
        '') names
      ) cfg.enabledUpstreamUnits
    )
    + lib.concatMapStrings (name: "ln -sf /dev/null $out/${name}\n") cfg.suppressedSystemUnits
  );
in
{
  options.systemd = {
    services = mkOption {
      type = types.attrsOf (types.submodule service);
      default = { };
      description = "Services.";
    };
    targets = mkOption {
      type = types.attrsOf (types.submodule { options = common; });
      default = { };
      description = "Targets.";
    };
    sockets = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = common // {
            socketConfig = section "Section [Socket].";
            listenStreams = words "Addresses of streams.";
            listenDatagrams = words "Addresses of datagrams.";
          };
        }
      );
      default = { };
      description = "Sockets.";
    };
    timers = unitOf "timerConfig" "Timer" "Timers.";
    paths = unitOf "pathConfig" "Path" "Paths.";
    slices = unitOf "sliceConfig" "Slice" "Slices.";
    mounts = mkOption {
      type = types.listOf (
        types.submodule (
          { config, ... }:
          {
            options = common // {
              unitName = mkOption {
                type = types.str;
                default = builtins.replaceStrings [ "/" ] [ "-" ] (lib.removePrefix "/" config.where) + ".mount";
                description = "Name of the unit.";
              };
              what = mkOption {
                type = types.str;
                description = "What is mounted.";
              };
              where = mkOption {
                type = types.str;
                description = "Where it is mounted.";
              };
              type = mkOption {
                type = types.nullOr types.str;
                default = null;
                description = "File system.";
              };
              options = mkOption {
                type = types.nullOr types.str;
                default = null;
                description = "Options of the mount.";
              };
              mountConfig = section "Section [Mount].";
            };
          }
        )
      );
      default = [ ];
      description = "Mounts.";
    };
    tmpfiles.rules = words "Lines of tmpfiles.d(5).";
    suppressedSystemUnits = words "Units of systemd's own that must not run.";
    enabledUpstreamUnits = mkOption {
      type = types.attrsOf (types.listOf types.str);
      default = { };
      description = "Units of systemd's own by the directory that wants them.";
    };
    extraConfig = mkOption {
      type = types.lines;
      default = "";
      description = "Lines of systemd-system.conf(5).";
    };
    packages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      description = "Without effect here.";
    };
  };

  config = {
    # What started at a time is its timer.
    systemd.timers = lib.mapAttrs (_: unit: {
      wantedBy = [ "timers.target" ];
      timerConfig.OnCalendar = unit.startAt;
    }) (lib.filterAttrs (_: unit: unit.startAt != [ ]) cfg.services);

    environment.etc = {
      "systemd/system".source = systemUnits;
      "tmpfiles.d/00-nixos.conf".text = lib.concatLines cfg.tmpfiles.rules;
      "systemd/system.conf".text = "[Manager]\n${cfg.extraConfig}";
      "sysctl.d/60-nixos.conf".text = lib.concatStrings (
        lib.mapAttrsToList (key: value: "${key}=${toString value}\n") config.boot.kernel.sysctl
      );
    };
    system.build.units = systemUnits;
  };
}
