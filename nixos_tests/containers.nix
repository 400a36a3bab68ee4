# A test whose machines are declared as containers, as newer releases have it, beside one that is not.
{
  name = "containers";

  nodes.machine =
    { ... }:
    {
      networking.firewall.enable = false;
    };

  containers.box =
    { pkgs, ... }:
    {
      environment.systemPackages = [ pkgs.iputils ];
    };

  testScript = ''
    start_all()
    box.wait_for_unit("multi-user.target")
    machine.wait_for_unit("multi-user.target")
    assert sorted(each.name for each in machines) == ["box", "machine"]
    # Both kinds are numbered together, by name.
    box.wait_until_succeeds("ping -c 1 -W 2 192.168.1.2", timeout=30)
    box.succeed("ping -c 1 -W 2 machine")
  '';
}
