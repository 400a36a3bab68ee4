# Each subtest is reported by itself.
{
  name = "subtests";

  nodes.machine =
    { ... }:
    {
      environment.etc."numbers".text = "1\n2\n3\n";
    };

  testScript = ''
    with subtest("the machine boots"):
        machine.wait_for_unit("multi-user.target")

    for number in (1, 2, 3):
        with subtest(f"number {number} is there"):
            machine.succeed(f"grep -x {number} /etc/numbers")

    with subtest("there is no other"), machine.nested("looking for a fourth"):
        machine.fail("grep -x 4 /etc/numbers")
        log.info("there is none")
  '';
}
