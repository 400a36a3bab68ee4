# The tests that boot nothing, on the source as it is.
{ pkgs, self }:

let
  python = import ./environment.nix { inherit pkgs; } (_: [ ]);
in
pkgs.runCommand "unit"
  {
    nativeBuildInputs = [
      pkgs.bash
      python
    ];
  }
  ''
    cp -r ${self} source
    chmod -R u+w source
    cd source
    export HOME=$TMPDIR
    # From here: the source, with the entry point of the package.
    PYTHONPATH=$PWD ${python}/bin/python3 -m pytest -p no:cacheprovider --junitxml="$TMPDIR/junit.xml" tests/unit tests/plugin
    mkdir "$out"
    cp "$TMPDIR/junit.xml" "$out"
  ''
