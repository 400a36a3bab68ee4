# The pytest plugin, for a package set of Python. nspawn and the other programs of the machine are found on PATH.
{
  lib,
  buildPythonPackage,
  hatchling,
  jeepney,
  pexpect,
  pluggy,
  pyroute2,
  pytest,
  pytest-xdist,
}:

let
  project = (lib.importTOML ../pyproject.toml).project;
in
buildPythonPackage {
  pname = project.name;
  inherit (project) version;
  pyproject = true;

  # Without tests and docs: a change of theirs builds nothing anew.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../pyproject.toml
      ../README.md
      ../LICENSE
      ../pytest_nspawn
    ];
  };

  build-system = [ hatchling ];
  dependencies = [
    jeepney
    pexpect
    pluggy
    pyroute2
    pytest
    pytest-xdist
  ];

  # They boot nodes or have pytest run pytest: the flake's checks do that.
  doCheck = false;
  pythonImportsCheck = [ "pytest_nspawn" ];

  meta = {
    inherit (project) description;
    license = lib.licenses.mit;
    platforms = lib.platforms.linux;
  };
}
