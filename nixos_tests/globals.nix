# What else a script finds: the driver, all machines, networks by number, names that no identifier has.
{
  name = "globals";

  nodes = {
    left-hand =
      { ... }:
      {
        virtualisation.vlans = [ 1 3 ];
      };
    right-hand =
      { ... }:
      {
        virtualisation.vlans = [ 3 ];
      };
  };

  testScript = ''
    start_all()

    assert [each.name for each in machines] == ["left-hand", "right-hand"]
    assert driver.machines == machines
    assert left_hand is machines[0] and right_hand is machines[1]
    assert [vlan1.nr, vlan3.nr] == [1, 3]
    assert len(vlans) == 2

    for each in machines:
        each.wait_for_unit("multi-user.target")

    calls = []


    def third_time(last: bool) -> bool:
        calls.append(last)
        return len(calls) == 3


    retry(third_time, timeout_seconds=20)
    assert calls == [False, False, False]

    serial_stdout_off()
    log.info("quiet now")
    serial_stdout_on()

    with log.nested("a block of its own"):
        left_hand.log("inside")

    assert os.path.isdir(left_hand.state_dir)
    for each in machines:
        each.shutdown()
    join_all()
  '';
}
