# A test that fails, at the line that says so: to see how failures look. It is not part of a run of all.
{
  name = "failing";

  nodes.machine = { ... }: { };

  testScript = ''
    machine.wait_for_unit("multi-user.target")

    with subtest("this one is well"):
        machine.succeed("true")

    with subtest("this one is not"):
        answer = machine.succeed("echo forty-one").strip()
        assert answer == "forty-two"

    with subtest("this one is not reached"):
        machine.succeed("touch /run/reached")
  '';
}
