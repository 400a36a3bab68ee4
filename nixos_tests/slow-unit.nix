# A unit that takes its time, and a node in no network: neither keeps the script from its work.
{ pkgs, ... }:
{
  name = "slow-unit";

  nodes.alone = {
    virtualisation.vlans = [ ];
    systemd.services.online = {
      description = "Something that waits for a network";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${pkgs.coreutils}/bin/true";
      };
    };
  };

  nodes.busy =
    { ... }:
    {
      systemd.services.patient = {
        description = "Something that starts when it is told";
        wantedBy = [ "multi-user.target" ];
        serviceConfig.Type = "oneshot";
        serviceConfig.RemainAfterExit = true;
        script = "while [ ! -e /run/go ]; do sleep 0.1; done";
      };
    };

  testScript = ''
    start_all()

    with subtest("no network to wait for"):
        alone.wait_for_unit("online.service")
        assert alone.succeed("ip -brief link").split()[0] == "lo"

    with subtest("a unit that starts and starts"):
        busy.require_unit_state("patient.service", "activating")
        busy.fail("systemctl is-active multi-user.target")
        busy.succeed("touch /run/go")
        busy.wait_for_unit("patient.service")
        busy.wait_for_unit("multi-user.target")
  '';
}
