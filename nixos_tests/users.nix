# Users, groups, homes, and who may read what.
{ lib, ... }:
{
  name = "users";

  nodes.machine =
    { ... }:
    {
      users.groups.staff = { };
      users.users = lib.genAttrs [ "alice" "bob" ] (name: {
        isNormalUser = true;
        description = "The user ${name}";
        extraGroups = lib.optional (name == "alice") "staff";
      });
      systemd.tmpfiles.rules = [
        "d /srv/staff 2770 root staff -"
        "f /srv/staff/notes 0640 root staff - secret"
      ];
    };

  testScript = ''
    machine.wait_for_unit("multi-user.target")

    with subtest("they exist, with homes of their own"):
        for user in ("alice", "bob"):
            assert f"The user {user}" in machine.succeed(f"getent passwd {user}")
            owner = machine.succeed(f"stat --format=%U /home/{user}").strip()
            assert owner == user

    with subtest("groups give rights"):
        assert "staff" in machine.succeed("id -nG alice").split()
        assert "staff" not in machine.succeed("id -nG bob").split()
        assert "secret" in machine.succeed("su - alice -c 'cat /srv/staff/notes'")
        machine.fail("su - bob -c 'cat /srv/staff/notes'")

    with subtest("a user cannot write where root can"):
        machine.succeed("touch /root/file")
        machine.fail("su - alice -c 'touch /root/file'")
        machine.succeed("su - alice -c 'echo mine > ~/file'")
        assert machine.succeed("stat --format=%U:%G /home/alice/file") == "alice:users\n"
  '';
}
