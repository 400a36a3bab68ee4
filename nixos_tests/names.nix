# Names: of the other machines, with and without their domain, and those of the machine's own list.
{
  name = "names";

  nodes = {
    mail =
      { ... }:
      {
        networking.domain = "example.org";
      };

    www =
      { ... }:
      {
        networking.hostName = "frontend";
        networking.extraHosts = "10.11.12.13 far.example.net";
      };
  };

  testScript =
    { nodes, ... }:
    ''
      start_all()
      mail.wait_for_unit("multi-user.target")
      frontend = machines[1]
      frontend.wait_for_unit("multi-user.target")

      with subtest("host names"):
          assert mail.succeed("hostname").strip() == "mail"
          assert frontend.succeed("hostname").strip() == "frontend"

      with subtest("the machines know each other"):
          for name in ("mail", "mail.example.org"):
              assert "192.168.1.1" in frontend.succeed(f"getent ahostsv4 {name}")
          assert "192.168.1.2" in mail.succeed("getent ahostsv4 frontend")

      with subtest("a list of one's own"):
          assert "10.11.12.13" in frontend.succeed("getent hosts far.example.net")
          mail.fail("getent hosts far.example.net")
    '';
}
