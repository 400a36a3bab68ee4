# A stand-in for nixpkgs' python3: the tree's own Python, and what `libraries` (a directory of packages) holds.
{
  pkgs,
  libraries,
}:

let
  version = "9.1";
  set = {
    inherit buildPythonPackage;
    pytest = { inherit version; };
    callPackage =
      file: arguments:
      let
        function = import file;
      in
      function (builtins.intersectAttrs (builtins.functionArgs function) (pkgs // absent // set) // arguments);
  };
  # They are in `libraries`.
  absent = builtins.listToAttrs (
    map
      (name: {
        inherit name;
        value = null;
      })
      [
        "hatchling"
        "jeepney"
        "mypy"
        "pexpect"
        "pluggy"
        "pyroute2"
        "pytest-xdist"
        "types-pexpect"
      ]
  );

  # As a wheel would be laid out: the package, and the names of its entry points.
  buildPythonPackage =
    {
      pname,
      version,
      src,
      meta,
      ...
    }:
    pkgs.runCommand pname { } ''
      mkdir -p $out/lib $out/lib/pytest_nspawn-${version}.dist-info
      cp -r ${src}/pytest_nspawn $out/lib/
      cd $out/lib/pytest_nspawn-${version}.dist-info
      printf 'Metadata-Version: 2.1\nName: ${pname}\nVersion: ${version}\n' >METADATA
      printf '[pytest11]\nnspawn = pytest_nspawn.plugin\n' >entry_points.txt
    ''
    // {
      inherit meta version;
    };
in
pkgs.python3
// {
  pkgs = set;
  # Programs of the tree want it at /usr, where a build's sandbox has nothing.
  withPackages =
    choose:
    let
      chosen = pkgs.lib.filter (package: package != null) (choose (absent // set));
      path = pkgs.lib.concatStringsSep ":" (map (package: "${package}/lib") chosen ++ [ "${libraries}" ]);
    in
    pkgs.writeShellScriptBin "python3" ''
      if [ ! -e /usr ]; then
        mkdir /usr
        ${pkgs.busybox}/bin/mount -o bind ${pkgs.machine}/usr /usr
        for name in bin sbin lib lib64; do
          for entry in /usr/$name/*; do [ -e /$name ] || ln -s usr/$name /$name; done
        done
      fi
      export PYTHONPATH=''${PYTHONPATH:+$PYTHONPATH:}${path}
      exec /usr/bin/python3 "$@"
    '';
}
