# What `nix flake check` runs.
{ pkgs, self }:

let
  inherit (pkgs) lib;
  inherit (self.lib) mkChecks mkTest;

  withPrefix = prefix: lib.mapAttrs' (name: lib.nameValuePair "${prefix}-${name}");

  template = mkTest {
    name = "template";
    inherit pkgs;
    tests = ../templates/default/tests;
    nodes.web = ../templates/default/web.nix;
  };

  examples = mkChecks {
    name = "example";
    inherit pkgs;
    tests = ../example_tests;
    sources = [ ../fixtures ];
    # The names of their nodes; each has what the units of the examples start, where Debian has it.
    nodes = lib.genAttrs [
      "backend"
      "backend1"
      "backend2"
      "backend3"
      "client"
      "machine"
      "server"
    ] (_: import ./example-node.nix);
    # Its networks have names, which a system that is built already cannot know.
    without = [ "test_router.py" ];
  };

  # Of our own NixOS tests, those that ask for nothing that a build may not do.
  existing =
    lib.genAttrs
      [
        "client-server"
        "firewall"
        "names"
        "reboot"
        "sockets"
        "subtests"
        "timers"
        "vlans"
        "web"
      ]
      (
        name:
        mkTest {
          inherit pkgs;
          name = "test-${name}";
          nixosTests = [ (../nixos_tests + "/${name}.nix") ];
        }
      );
in
lib.optionalAttrs (import ./plugin.nix { inherit pkgs; } != null) (
  {
    unit = import ./unit.nix { inherit pkgs self; };
    inherit template;
    template-vm = template.vm;
  }
  // withPrefix "example" examples
  // withPrefix "nixos-test" existing
)
// import ./modules.nix { inherit pkgs self; }
