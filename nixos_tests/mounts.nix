# Mounts as units, and files that systemd makes at boot.
{
  name = "mounts";

  nodes.machine =
    { ... }:
    {
      systemd.mounts = [
        {
          what = "tmpfs";
          where = "/srv/fast";
          type = "tmpfs";
          options = "size=8M,mode=0750";
          wantedBy = [ "multi-user.target" ];
        }
      ];
      systemd.tmpfiles.rules = [
        "d /srv/box 0700 root root -"
        "f /srv/box/label 0600 root root - fragile"
        "L /srv/link - - - - /srv/box/label"
      ];
      systemd.targets.goal = {
        description = "All is there";
        wants = [ "srv-fast.mount" ];
        after = [ "srv-fast.mount" ];
        wantedBy = [ "multi-user.target" ];
      };
    };

  testScript = ''
    machine.wait_for_unit("goal.target")
    machine.wait_for_unit("srv-fast.mount")
    assert "tmpfs" in machine.succeed("stat --file-system --format=%T /srv/fast")
    assert machine.succeed("stat --format=%a /srv/fast") == "750\n"
    machine.fail("dd if=/dev/zero of=/srv/fast/big bs=1M count=9 2>&1")

    assert machine.succeed("cat /srv/link").strip() == "fragile"
    assert machine.succeed("stat --format=%a /srv/box") == "700\n"

    machine.succeed("umount /srv/fast || systemctl stop srv-fast.mount")
    machine.wait_until_succeeds("systemctl show srv-fast.mount | grep ActiveState=inactive")
  '';
}
