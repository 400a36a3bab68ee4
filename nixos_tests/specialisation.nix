# A machine with a second face, and the way from one to the other and back.
{
  name = "specialisation";

  nodes.machine =
    { lib, ... }:
    {
      environment.etc."face".text = "first\n";
      systemd.services.face = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.Type = "oneshot";
        serviceConfig.RemainAfterExit = true;
        script = lib.mkDefault "echo first > /run/face";
      };

      specialisation.second.configuration = {
        environment.etc."face".text = lib.mkForce "second\n";
        systemd.services.face.script = "echo second > /run/face";
        systemd.services.extra = {
          wantedBy = [ "multi-user.target" ];
          serviceConfig.Type = "oneshot";
          serviceConfig.RemainAfterExit = true;
          script = "true";
        };
      };
    };

  testScript = ''
    machine.wait_for_unit("face.service")
    first = machine.succeed("readlink -f /run/current-system").strip()
    t.assertEqual("first\n", machine.succeed("cat /etc/face"))
    t.assertEqual("first\n", machine.succeed("cat /run/face"))
    machine.fail("systemctl cat extra.service")

    with subtest("switch to the second face"):
        machine.succeed(f"{first}/specialisation/second/bin/switch-to-configuration test")
        t.assertEqual("second\n", machine.succeed("cat /etc/face"))
        machine.wait_until_succeeds("grep second /run/face", timeout=30)
        machine.wait_for_unit("extra.service")

    with subtest("and back"):
        machine.succeed(f"{first}/bin/switch-to-configuration test")
        t.assertEqual("first\n", machine.succeed("cat /etc/face"))
        machine.wait_until_succeeds("grep first /run/face", timeout=30)
        machine.wait_until_fails("systemctl is-active extra.service", timeout=30)
  '';
}
