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
  project = (builtins.fromTOML (builtins.readFile ../pyproject.toml)).project;
  home = toString ../.;
  # Without tests and docs: a change of theirs builds nothing anew.
  isPart =
    path: _:
    let
      parts = lib.splitString "/" (lib.removePrefix "${home}/" path);
    in
    lib.elem (lib.head parts) [
      "LICENSE"
      "README.md"
      "pyproject.toml"
      "pytest_nspawn"
    ]
    && lib.last parts != "__pycache__";
in
buildPythonPackage {
  pname = project.name;
  inherit (project) version;
  pyproject = true;

  src = builtins.path {
    path = ../.;
    name = "pytest-nspawn";
    filter = isPart;
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
