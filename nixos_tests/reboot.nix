# A machine that reboots, is shut down, and loses its power keeps what it wrote.
{
  name = "reboot";

  nodes.machine =
    { ... }:
    {
      systemd.services.counter = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.Type = "oneshot";
        serviceConfig.RemainAfterExit = true;
        serviceConfig.StateDirectory = "counter";
        script = ''
          echo boot >> /var/lib/counter/boots
          sync
        '';
      };
    };

  testScript = ''
    def boots() -> int:
        machine.wait_for_unit("counter.service")
        return int(machine.succeed("wc -l < /var/lib/counter/boots"))


    machine.start()
    t.assertEqual(1, boots())
    first = machine.succeed("cat /proc/sys/kernel/random/uuid")

    with subtest("a clean shutdown"):
        machine.shutdown()
        assert not machine.is_up()
        machine.start()
        t.assertEqual(2, boots())

    with subtest("a reboot"):
        machine.reboot()
        t.assertEqual(3, boots())

    with subtest("a reboot from inside"):
        machine.execute("systemctl reboot >/dev/null 2>&1 &", check_return=False, check_output=False)
        machine.wait_until_succeeds("[ $(wc -l < /var/lib/counter/boots) = 4 ]", timeout=120)

    with subtest("a power cut"):
        machine.succeed("echo kept > /var/lib/kept && sync")
        machine.crash()
        machine.start()
        t.assertEqual(5, boots())
        assert machine.succeed("cat /var/lib/kept") == "kept\n"

    with subtest("a shutdown from inside"):
        machine.execute("systemctl poweroff >/dev/null 2>&1 &", check_return=False, check_output=False)
        machine.wait_for_shutdown()
        assert not machine.is_up()
  '';
}
