# Debian's programs in the store: the patched tree, and a directory of links a package (packages.nix).
{ settings, lib }:

let
  specifications = import ./packages.nix { inherit lib tree; };

  tree = derivation {
    name = "debian-${settings.suite}";
    inherit (settings) system;
    # The only step that reads outside the store. The key stands for what is in the tree.
    builder = "/usr/bin/python3";
    args = [ ./install.py settings.tree (placeholder "out") ];
    inherit (settings) key;
    PATH = "/usr/bin:/bin";
  };

  farm = derivation {
    name = "debian-packages";
    inherit (settings) system;
    builder = "${tree}/usr/bin/python3";
    # Nix gives the bare name as argv[0], and Python finds its modules from where it lies.
    PATH = "${tree}/usr/bin";
    # As root, without the sandbox, it could write into the tree.
    PYTHONDONTWRITEBYTECODE = "1";
    args = [ ./farm.py tree (builtins.toFile "packages.json" json) (placeholder "out") ];
  };
  # toFile takes no references: the tree's path goes in when the links are made.
  json = builtins.unsafeDiscardStringContext (builtins.toJSON (lib.mapAttrs (_: spec: removeAttrs spec [ "attributes" ]) specifications));

  package = name: spec:
    let
      pname = spec.pname or name;
      version = settings.versions.${lib.head (spec.debs or [ ] ++ [ "base-files" ])} or "0";
      self = {
        type = "derivation";
        name = "${pname}-${version}";
        inherit pname version self;
        inherit (settings) system;
        inherit (farm) drvPath;
        outPath = "${farm}/${name}";
        outputName = "out";
        outputs = [ "out" ];
        all = [ self ];
        out = self;
        bin = self;
        lib = self;
        dev = self;
        meta = { description = "${pname}, from Debian's ${toString (spec.debs or "own files")}"; platforms = lib.platforms.linux; outputsToInstall = [ "out" ]; };
        passthru = { };
        override = _: self;
        overrideAttrs = _: self;
        overrideDerivation = _: self;
      } // spec.attributes or { };
    in
    removeAttrs self [ "self" ];
in
rec {
  inherit tree farm;
  packages = lib.mapAttrs package specifications;
  initialPath = [ "coreutils" "findutils" "diffutils" "gnused" "gnugrep" "gawk" "gnutar" "gzip" "bzip2" "gnumake" "bash" "gnupatch" "xz" "file" ];
  cc = packages.cc // {
    isGNU = true;
    isClang = false;
    cc = packages.cc;
    libc = packages.glibc;
    bintools = packages.cc;
    targetPrefix = "";
  };
}
