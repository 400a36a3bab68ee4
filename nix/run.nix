# A script that runs pytest on systems that are built already. Its one argument is the directory for what comes of it.
{ pkgs, python }:
# `files`: what is copied into the directory of the run, by name. `manifest`: what --nspawn-manifest reads.
# `arguments`: of pytest. `packages`: programs on PATH.
{
  files,
  manifest,
  arguments,
  packages,
}:

let
  inherit (pkgs) lib;
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
  manifestFile = pkgs.writeText "manifest.json" (builtins.toJSON manifest);
in
pkgs.writeShellScript "run-tests" ''
  set -eu
  out=$1
  export PATH=${path}''${PATH:+:$PATH} HOME=''${TMPDIR:=/tmp} LANG=C.UTF-8 TMPDIR
  mkdir "$TMPDIR/run"
  cd "$TMPDIR/run"
  ${concatStrings (mapAttrsToList (name: source: "cp -r ${source} ${escapeShellArg name}\n") files)}
  chmod -R u+w .
  status=0
  python3 -m pytest -p no:cacheprovider --basetemp="$TMPDIR/pytest" --junitxml="$out/junit.xml" \
    --nspawn-image=nixos --nspawn-manifest=${manifestFile} ${escapeShellArgs arguments} || status=$?
  # What failed nodes wrote to their roots, with their journals.
  if [ -d "$TMPDIR/pytest/nspawn" ]; then
    cp -r "$TMPDIR/pytest/nspawn" "$out/nodes"
  fi
  exit "$status"
''
