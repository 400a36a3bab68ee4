# The plugin in every package set of Python, and the command `nixos-nspawn`.
final: prev: {
  pythonPackagesExtensions = prev.pythonPackagesExtensions or [ ] ++ [
    (python: _: { pytest-nspawn = python.callPackage ./package.nix { }; })
  ];
  nixos-nspawn = final.callPackage ./command.nix { };
}
