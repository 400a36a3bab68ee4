# A stand-in for nixpkgs: a package set over one tree of Debian's own programs, for tests on machines that have Nix and no
# binary cache. `machine` is a store path with the tree's usr/; busybox in it is static, so it builds anything anywhere.
{ machine }:
{
  system ? builtins.currentSystem,
  config ? { },
  overlays ? [ ],
}:

let
  lib = import ./lib.nix;
  busybox = "${machine}/usr/bin/busybox";

  # A derivation from a shell script; attributes become variables.
  runCommand =
    name: attributes: script:
    derivation (
      removeAttrs attributes [ "meta" ]
      // {
        inherit name system;
        builder = busybox;
        args = [
          "sh"
          "-euc"
          "PATH=$applets; eval \"$buildCommand\""
        ];
        applets = "${applets}/bin";
        buildCommand = script;
      }
    )
    // {
      inherit name;
      meta = {
        mainProgram = name;
      }
      // attributes.meta or { };
    };

  # busybox under the names of its programs.
  applets = derivation {
    name = "busybox";
    inherit system;
    builder = busybox;
    args = [
      "sh"
      "-euc"
      "${busybox} mkdir -p $out/bin; ${busybox} --install -s $out/bin"
    ];
  };

  writeTextFile =
    {
      name,
      text,
      executable ? false,
      destination ? "",
    }:
    runCommand name
      {
        inherit text destination;
        passAsFile = [ "text" ];
      }
      ''
        target=$out$destination
        mkdir -p "$(dirname "$target")"
        cp "$textPath" "$target"
        ${lib.optionalString executable "chmod +x \"$target\""}
      '';

  # A package that is Debian's own program, seen through a path of its own.
  program =
    name: programs:
    runCommand name { inherit programs; } ''
      mkdir -p $out/bin
      for program in $programs; do
        for directory in usr/bin usr/sbin; do
          if [ -e ${machine}/$directory/$program ]; then ln -sf /$directory/$program $out/bin/$program; fi
        done
        [ -L $out/bin/$program ] || { echo "the stand-in's tree has no $program" >&2; exit 1; }
      done
    '';

  self = {
    inherit
      lib
      system
      machine
      runCommand
      writeTextFile
      ;
    path = ./.;
    config = config;
    stdenv = {
      hostPlatform = {
        inherit system;
        isLinux = true;
        isx86_64 = system == "x86_64-linux";
      };
      isLinux = true;
    };
    runCommandLocal = runCommand;
    newScope =
      extra: file: arguments:
      let
        function = if builtins.isFunction file then file else import file;
      in
      function (builtins.intersectAttrs (lib.functionArgs function) (final // extra) // arguments);
    callPackage = self.newScope { };
    extend = overlay: self.appendOverlays [ overlay ];
    appendOverlays = more: import ./. { inherit machine; } {
      inherit system config;
      overlays = overlays ++ more;
    };

    writeText = name: text: writeTextFile { inherit name text; };
    writeTextDir = path: text: writeTextFile {
      inherit text;
      name = baseNameOf path;
      destination = "/${path}";
    };
    writeScript = name: text: writeTextFile { inherit name text; executable = true; };
    writeShellScript = name: text: self.writeScript name "#!/bin/sh\n${text}";
    writeScriptBin = name: text: writeTextFile {
      inherit name text;
      executable = true;
      destination = "/bin/${name}";
    };
    writeShellScriptBin = name: text: self.writeScriptBin name "#!/bin/sh\n${text}";
    writeShellApplication =
      {
        name,
        text,
        runtimeInputs ? [ ],
        ...
      }:
      self.writeShellScriptBin name "export PATH=${lib.makeBinPath runtimeInputs}:$PATH\n${text}";
    buildEnv =
      {
        name,
        paths,
        ...
      }:
      runCommand name { inherit paths; } ''
        mkdir -p $out/bin
        for path in $paths; do
          for entry in $path/bin/* $path/sbin/*; do
            [ ! -e "$entry" ] && [ ! -L "$entry" ] || ln -sf "$entry" $out/bin/
          done
        done
      '';
    symlinkJoin = self.buildEnv;
    linkFarm =
      name: entries:
      runCommand name { } (
        "mkdir -p $out\n"
        + lib.concatMapStrings (entry: "mkdir -p $out/$(dirname ${entry.name}); ln -s ${entry.path} $out/${entry.name}\n") entries
      );
    # As nixpkgs' own: the paths of a closure, and what `nix-store --load-db` reads. Nix hands the closure over as JSON.
    closureInfo =
      { rootPaths }:
      derivation {
        name = "closure-info";
        inherit system;
        builder = busybox;
        args = [
          "sh"
          "-euc"
          "PATH=${applets}/bin; . ${./closure-info.sh}"
        ];
        __structuredAttrs = true;
        exportReferencesGraph.closure = rootPaths;
      };

    coreutils = applets;
    busybox = applets;
    gnugrep = applets;
    gnused = applets;
    gnutar = applets;
    netcat = applets;
    bash = program "bash" [ "bash" ];
    bashInteractive = self.bash;
    runtimeShell = "/bin/sh";
    systemd = program "systemd" [
      "systemctl"
      "journalctl"
      "systemd-nspawn"
    ];
    iproute = self.iproute2;
    iproute2 = program "iproute2" [
      "ip"
      "ss"
    ];
    iputils = program "iputils" [ "ping" ];
    nftables = program "nftables" [ "nft" ];
    util-linux = program "util-linux" [
      "findmnt"
      "mount"
      "unshare"
    ];
    curl = program "curl" [ "curl" ];
    python3 = program "python3" [ "python3" ] // {
      sitePackages = "lib/python3/site-packages";
      pkgs = {
        python = self.python3;
        toPythonModule = package: package // { pythonModule = self.python3; };
        requiredPythonModules = packages: lib.filter (package: package ? pythonModule) packages ++ [ self.python3 ];
      };
    };
    su = program "su" [ "su" ];
    nix = program "nix" [
      "nix"
      "nix-store"
    ];
    hello = self.writeShellScriptBin "hello" ''
      echo "Hello, world!"
    '';
  };

  final = lib.foldl' (packages: overlay: packages // overlay packages packages) self overlays;
in
final
