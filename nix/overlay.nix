# The plugin in every package set of Python, and the command `nixos-nspawn`.
final: previous: {
  pythonPackagesExtensions = previous.pythonPackagesExtensions or [ ] ++ [
    (python: _: { pytest-nspawn = python.callPackage ./package.nix { }; })
  ];
  nixos-nspawn = final.callPackage ./command.nix { };
}
