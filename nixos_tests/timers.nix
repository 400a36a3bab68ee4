# Timers: one that fires again and again, one that must not fire on its own.
{
  name = "timers";

  nodes.machine =
    { ... }:
    {
      systemd.services.tick = {
        serviceConfig.Type = "oneshot";
        serviceConfig.StateDirectory = "tick";
        script = "echo tick >> /var/lib/tick/ticks";
      };
      systemd.timers.tick = {
        wantedBy = [ "timers.target" ];
        timerConfig = {
          OnActiveSec = "1s";
          OnUnitActiveSec = "1s";
          AccuracySec = "100ms";
        };
      };

      systemd.services.yearly.serviceConfig.Type = "oneshot";
      systemd.services.yearly.script = "touch /run/yearly";
      systemd.timers.yearly = {
        wantedBy = [ "timers.target" ];
        timerConfig.OnCalendar = "2100-01-01";
      };
    };

  testScript = ''
    machine.wait_for_unit("timers.target")
    machine.wait_for_file("/var/lib/tick/ticks")
    machine.wait_until_succeeds("[ $(wc -l < /var/lib/tick/ticks) -ge 3 ]", timeout=30)

    machine.require_unit_state("yearly.timer", "active")
    machine.fail("test -e /run/yearly")
    assert "2100-01-01" in machine.succeed("systemctl list-timers --all --no-pager yearly.timer")

    # What a timer starts can be started by hand.
    machine.succeed("systemctl start yearly.service")
    machine.succeed("test -e /run/yearly")
  '';
}
