# The derivation that runs pytest on systems that are built already.
{
  lib,
  pkgs,
  python,
}:
# `files`: what is copied into the directory of the run, by name. `manifest`: what --nspawn-manifest reads.
# `arguments`: of pytest. `packages`: programs on PATH. `report`: whether a failed run is a result, and no failed build.
{
  name,
  files,
  manifest,
  arguments,
  packages,
  report,
}:

let
  inherit (lib) concatStrings escapeShellArg escapeShellArgs mapAttrsToList;

  path = lib.makeBinPath (
    packages
    ++ [
      python
      pkgs.bash
      pkgs.iproute2 or pkgs.iproute
      pkgs.systemd
      pkgs.util-linux or pkgs.utillinux
      pkgs.coreutils
      pkgs.gnugrep
      pkgs.gnutar
    ]
  );
in
pkgs.runCommand name
  {
    # Root in namespaces of the build's own, with 65536 ids and a control group: see docs/flake.md.
    requiredSystemFeatures = [ "uid-range" ];
    manifest = builtins.toJSON manifest;
    passAsFile = [ "manifest" ];
  }
  ''
    export PATH=${path}:$PATH HOME=$TMPDIR LANG=C.UTF-8
    mkdir "$out" tests
    cd tests
    ${concatStrings (mapAttrsToList (file: source: "cp -r ${source} ${escapeShellArg file}\n") files)}
    chmod -R u+w .

    # What a machine has and a build has not; it is gone with the build.
    mkdir -p /run
    grep -q ' cgroup2 ' /proc/self/mounts || mount -t cgroup2 cgroup2 /sys/fs/cgroup

    # `nix build --keep-failed` keeps what pytest leaves of failed nodes, below its temporary directory.
    status=0
    python3 -m pytest -p no:cacheprovider --basetemp="$TMPDIR/pytest" --junitxml="$out/junit.xml" \
      --nspawn-manifest="$manifestPath" ${escapeShellArgs arguments} || status=$?
    if [ -d "$TMPDIR/pytest/nspawn" ]; then
      cp -r "$TMPDIR/pytest/nspawn" "$out/nodes"
    fi
    ${
      if report then
        ''
          echo "$status" >"$out/status"
        ''
      else
        ''
          if [ "$status" != 0 ]; then
            echo "pytest ended with $status; what the failed nodes wrote is in the attribute .report of this test, or in $TMPDIR with --keep-failed" >&2
            exit "$status"
          fi
        ''
    }
  ''
