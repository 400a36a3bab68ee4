# Conditions that must hold while something else goes on.
{
  name = "polling";

  nodes.machine =
    { pkgs, ... }:
    {
      systemd.services.steady = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep 10000";
      };
      systemd.services.late = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.Type = "oneshot";
        serviceConfig.RemainAfterExit = true;
        script = "sleep 2; touch /run/late";
      };
    };

  testScript = ''
    machine.wait_for_unit("steady.service")


    @polling_condition
    def steady_runs():
        machine.succeed("systemctl is-active steady.service")


    @polling_condition(seconds_interval=0.5, description="the late service is done")
    def late_is_done():
        return machine.execute("test -e /run/late")[0] == 0


    late_is_done.wait(timeout=60)

    with steady_runs:
        machine.succeed("sleep 1")
        with late_is_done:
            machine.succeed("true")

    with subtest("a command ends as soon as its condition is false"):
        machine.succeed("( sleep 1; systemctl stop steady.service ) >/dev/null 2>&1 &")
        try:
            with steady_runs:
                machine.succeed("sleep 120")
        except Exception as error:
            assert "steady" in str(error), f"it failed for another reason: {error}"
        else:
            raise AssertionError("the condition was false, and nothing said so")
  '';
}
