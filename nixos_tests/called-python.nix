# A test as those of nixpkgs itself are called: through make-test-python.nix.
import <nixpkgs/nixos/tests/make-test-python.nix> (
  { pkgs, ... }:
  {
    name = "called-python";

    nodes.machine =
      { pkgs, ... }:
      {
        environment.systemPackages = [ pkgs.curl ];
      };

    testScript = ''
      machine.wait_for_unit("multi-user.target")
      assert "curl" in machine.succeed("curl --version")
    '';
  }
)
