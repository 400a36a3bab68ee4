# A test behind a caller of its own, with a machine called by the old attribute.
import ./make-test.nix (
  { pkgs, lib, ... }:
  {
    name = "called";

    machine =
      { ... }:
      {
        environment.etc."called".text = lib.concatStringsSep " " [ "with" "packages" ];
      };

    testScript = ''
      start_all()
      machine.wait_for_unit("multi-user.target")
      assert machine.succeed("cat /etc/called") == "with packages"
    '';
  }
)
