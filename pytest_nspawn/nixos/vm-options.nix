# Options that only a virtual machine has: a NixOS test that sets them evaluates all the same. Where a container has a
# counterpart it is used (memorySize, credentials, ...); where the option matters, `virtualisation.nspawn.vmOnly` names it.
{
  config,
  lib,
  modulesPath,
  options,
  ...
}:

let
  inherit (lib) mkOption types;

  any = lib.mkOptionType {
    name = "anything";
    description = "anything";
    check = _: true;
    merge = _: definitions: (lib.last definitions).value;
  };

  ignored = default: description: mkOption {
    type = any;
    inherit default;
    description = "${description} A container has none: accepted, and without effect.";
  };

  # What somebody outside of nixpkgs and of this profile has defined of an option.
  isOwn = file: !(lib.hasPrefix (toString modulesPath) (toString file)) && !(lib.hasPrefix (toString ./.) (toString file));
  definedOf =
    path:
    let
      option = lib.attrByPath path { } options;
    in
    lib.concatMap (each: lib.optional (isOwn each.fst) each.snd) (lib.zipLists (option.files or [ ]) (option.definitions or [ ]));
  isSet = path: lib.subtractLists [ false null [ ] { } ] (definedOf path) != [ ];

  matters =
    [
      [ "boot" "extraModulePackages" ]
      [ "boot" "kernelModules" ]
      [ "boot" "kernelPackages" ]
      [ "boot" "kernelPatches" ]
      [ "boot" "initrd" "kernelModules" ]
      [ "boot" "binfmt" "emulatedSystems" ]
      [ "boot" "initrd" "luks" "devices" ]
      [ "boot" "initrd" "postDeviceCommands" ]
      [ "boot" "initrd" "postMountCommands" ]
      [ "boot" "initrd" "preDeviceCommands" ]
      [ "boot" "initrd" "preLVMCommands" ]
      [ "boot" "initrd" "systemd" "services" ]
      [ "swapDevices" ]
      [ "virtualisation" "bios" ]
      [ "virtualisation" "directBoot" ]
      [ "virtualisation" "emptyDiskImages" ]
      [ "virtualisation" "tpm" ]
      [ "virtualisation" "useBootLoader" ]
      [ "virtualisation" "useEFIBoot" ]
      [ "virtualisation" "useSecureBoot" ]
    ];
  enabled = lib.filter (path: lib.attrByPath path false config == true) [
    [ "boot" "initrd" "network" "enable" ]
    [ "security" "apparmor" "enable" ]
    [ "security" "audit" "enable" ]
    [ "services" "displayManager" "enable" ]
    [ "services" "xserver" "enable" ]
    [ "virtualisation" "virtualbox" "host" "enable" ]
    [ "zramSwap" "enable" ]
  ];

  # Of what these say to a kernel, or to an initrd, nothing in a node can tell.
  harmlessParams = [
    "apparmor"
    "audit"
    "biosdevname"
    "boot.panic_on_fail"
    "boot.shell_on_fail"
    "console"
    "earlyprintk"
    "loglevel"
    "mitigations"
    "net.ifnames"
    "nomodeset"
    "nowatchdog"
    "panic"
    "printk.devkmsg"
    "quiet"
    "random.trust_cpu"
    "splash"
    "systemd.log_level"
    "systemd.log_target"
    "systemd.show_status"
  ];
  isHarmlessParam =
    param:
    lib.elem (lib.head (lib.splitString "=" param)) harmlessParams
    || lib.any (prefix: lib.hasPrefix prefix param) [ "fbcon=" "rd." "udev." "vt." ];
  params = lib.filter (param: !isHarmlessParam param) (lib.concatLists (definedOf [ "boot" "kernelParams" ]));

  # What a container mounts as a virtual machine does; the rest would be on disks.
  inherit (config.virtualisation) fileSystems;
  mounted = lib.filterAttrs (
    _: each: lib.elem each.fsType [ "tmpfs" "overlay" ] || lib.elem "bind" each.options
  ) fileSystems;

  # Which QEMU runs, and how a guest talks to it, is nothing that a test can tell.
  harmless = [
    "consoles"
    "diskInterface"
    "forceAccel"
    "guestAgent"
    "package"
    "virtioKeyboard"
  ];
  # Conditions are still in it: nobody has merged its values.
  present = lib.modules.dischargeProperties;
  qemu = lib.unique (
    lib.concatMap (
      value: lib.concatMap (set: lib.filter (name: present set.${name} != [ ]) (lib.attrNames set)) (present value)
    ) (definedOf [ "virtualisation" "qemu" ])
  );
  ofQemu = map (name: [
    "virtualisation"
    "qemu"
    name
  ]) (lib.subtractLists harmless qemu);
in
{
  # Some configurations import it; this module is in its place.
  disabledModules = [ "virtualisation/qemu-vm.nix" ];

  options.virtualisation = {
    memorySize = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 512;
      description = "Limit of the node's memory in MiB; null is none.";
    };

    diskSize = mkOption {
      type = types.unspecified;
      default = null;
      example = 4096;
      description = "What the node may write to its root, in MiB, where that is more than it may anyway.";
    };

    credentials = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            mechanism = ignored null "How a virtual machine gets it.";
            text = mkOption {
              type = types.nullOr types.str;
              default = null;
              description = "The credential itself, which everybody can read in the store.";
            };
            source = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "/run/secrets/token";
              description = "A file of the machine that has it.";
            };
          };
        }
      );
      default = { };
      example = {
        motto.text = "open sesame";
      };
      description = "Credentials that the node's systemd is given (systemd.exec(5), CREDENTIALS).";
    };

    sharedDirectories = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            source = mkOption {
              type = types.str;
              example = "$HOME/data";
              description = "The directory of the machine; variables of the environment are put in.";
            };
            target = mkOption {
              type = types.str;
              example = "/data";
              description = "Where the node sees it.";
            };
            securityModel = ignored null "How owners of files are kept.";
          };
        }
      );
      default = { };
      description = "Directories of the machine that the node sees, and may write to.";
    };

    bios = ignored null "Firmware of a virtual machine.";
    bootDevice = ignored null "Disk that a virtual machine boots from.";
    bootLoaderDevice = ignored null "Disk that a virtual machine's boot loader is on.";
    bootPartition = ignored null "Partition that a virtual machine boots from.";
    cores = ignored 1 "Number of a virtual machine's processors.";
    directBoot = ignored { } "Whether a virtual machine boots without a boot loader.";
    diskImage = ignored null "Disk of a virtual machine.";
    efi = ignored { } "Firmware of a virtual machine.";
    efiVars = ignored null "Variables of a virtual machine's firmware.";
    emptyDiskImages = ignored [ ] "Empty disks of a virtual machine.";
    fileSystems = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            device = mkOption {
              type = types.nullOr types.str;
              default = null;
              description = "What is mounted.";
            };
            fsType = mkOption {
              type = types.str;
              default = "auto";
              description = "Type of the file system.";
            };
            options = mkOption {
              type = types.listOf types.str;
              default = [ "defaults" ];
              description = "Options of mount(8).";
            };
          };
          # What else is said of one is about its disk.
          config._module.check = false;
        }
      );
      default = { };
      example = {
        "/scratch".fsType = "tmpfs";
      };
      description = "File systems that the node mounts, in memory, as overlays and binds. It has no disks for others.";
    };
    forwardPorts = ignored [ ] "Ports of the machine that lead into a virtual machine; see Machine.forward_port.";
    graphics = ignored false "Whether a virtual machine has a screen.";
    host = ignored { } "Packages of the machine that runs a virtual machine.";
    msize = ignored 16384 "Packet size of a virtual machine's shared directories.";
    additionalPaths = mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
      description = "Store paths that the node sees beside its system, where it has a store of its own.";
    };
    mountHostNixStore = ignored true "Whether a virtual machine sees the machine's store.";
    pathsInNixDB = mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
      description = "As `virtualisation.additionalPaths`.";
    };
    qemu = ignored { } "Options of QEMU.";
    resolution = ignored { } "Size of a virtual machine's screen.";
    restrictNetwork = ignored false "Whether a virtual machine's network is cut off.";
    rootDevice = ignored null "Root disk of a virtual machine.";
    tpm = ignored { } "Trusted platform module of a virtual machine.";
    useBootLoader = ignored false "Whether a virtual machine has a boot loader.";
    useDefaultFilesystems = ignored true "Whether a virtual machine has the usual file systems.";
    useEFIBoot = ignored false "Whether a virtual machine has UEFI.";
    useHostCerts = ignored false "Whether a virtual machine has the machine's certificates.";
    useNixStoreImage = ignored false "Whether a virtual machine's store is a disk.";
    useSecureBoot = ignored false "Whether a virtual machine boots what is signed.";
    writableStore = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the node may write to its store: as `virtualisation.nspawn.store = \"writable\"`.";
    };
    writableStoreUseTmpfs = ignored true "Where a virtual machine's store is written to.";

    nspawn.vmOnly = mkOption {
      type = types.listOf types.str;
      readOnly = true;
      internal = true;
      default =
        map (lib.concatStringsSep ".") (lib.filter isSet matters ++ ofQemu ++ enabled)
        ++ map (param: "boot.kernelParams ${param}") params
        ++ map (path: "virtualisation.fileSystems ${path}") (lib.attrNames (removeAttrs fileSystems (lib.attrNames mounted)));
      description = "Options that are set and that a container cannot honour.";
    };
  };

  config = {
    virtualisation.nspawn.store = lib.mkIf config.virtualisation.writableStore (lib.mkDefault "writable");
  }
  // lib.optionalAttrs (options ? fileSystems) {
    # As in a virtual machine, whatever a machine of metal has there.
    fileSystems = lib.mapAttrs (
      _: each:
      lib.mkOverride 10 {
        inherit (each) fsType options;
        device = if each.device == null then each.fsType else each.device;
      }
    ) mounted;
  };
}
