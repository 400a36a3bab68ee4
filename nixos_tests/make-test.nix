# A caller in the style of nixpkgs' make-test-python: gives a test its packages, whether it asks for them or not.
test:
{ pkgs ? import <nixpkgs> { }, ... }@args:
if builtins.isFunction test then test (args // { inherit pkgs; inherit (pkgs) lib; }) else test
