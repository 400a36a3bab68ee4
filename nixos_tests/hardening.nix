# What systemd does for a service: a user of its own, a state directory, a private /tmp, restarts, dependencies.
{
  name = "hardening";

  nodes.machine =
    { ... }:
    {
      systemd.services.guarded = {
        wantedBy = [ "multi-user.target" ];
        after = [ "first.service" ];
        requires = [ "first.service" ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          DynamicUser = true;
          StateDirectory = "guarded";
          PrivateTmp = true;
          ProtectHome = true;
        };
        script = ''
          id -u > /var/lib/guarded/user
          echo hidden > /tmp/guarded
          if touch /etc/not-allowed; then exit 1; fi
        '';
      };

      systemd.services.first = {
        serviceConfig.Type = "oneshot";
        serviceConfig.RemainAfterExit = true;
        script = "date +%s%N > /run/first";
      };

      systemd.services.clumsy = {
        serviceConfig = {
          Restart = "on-failure";
          RestartSec = "100ms";
          StateDirectory = "clumsy";
        };
        startLimitIntervalSec = 0;
        script = ''
          echo try >> /var/lib/clumsy/tries
          [ "$(wc -l < /var/lib/clumsy/tries)" -ge 3 ] || exit 7
          exec sleep 1000
        '';
      };

      systemd.services.doomed = {
        serviceConfig.Type = "oneshot";
        script = "exit 3";
      };
    };

  testScript = ''
    machine.wait_for_unit("guarded.service")

    with subtest("a service runs as a user of its own"):
        user = int(machine.succeed("cat /var/lib/guarded/user"))
        assert 61184 <= user <= 65519, f"{user} is no dynamic user"
        assert machine.succeed("stat --format=%u /var/lib/private/guarded") == f"{user}\n"
        machine.fail("test -e /tmp/guarded")
        machine.fail("test -e /etc/not-allowed")

    with subtest("what it requires was started before it"):
        machine.require_unit_state("first.service")
        first = int(machine.get_unit_property("first.service", "ActiveEnterTimestampMonotonic"))
        guarded = int(machine.get_unit_property("guarded.service", "ExecMainStartTimestampMonotonic"))
        assert first <= guarded

    with subtest("one that fails is started again"):
        machine.start_job("clumsy.service")
        machine.wait_until_succeeds("[ $(wc -l < /var/lib/clumsy/tries) = 3 ]", timeout=30)
        machine.wait_for_unit("clumsy.service")
        assert int(machine.get_unit_info("clumsy.service")["NRestarts"]) == 2

    with subtest("one that cannot start fails"):
        status, _ = machine.execute("systemctl start doomed.service")
        assert status != 0
        machine.require_unit_state("doomed.service", "failed")
        assert machine.get_unit_property("doomed.service", "ExecMainStatus") == "3"
  '';
}
