# The same tests in one virtual machine, for builders that have KVM and no uid-range.
{ pkgs }:
{ name, run }:

(pkgs.testers.runNixOSTest or pkgs.nixosTest) {
  inherit name;

  nodes.machine = {
    # The roots of all nodes are in its memory.
    virtualisation.memorySize = 4096;
    virtualisation.cores = 2;
    # Systems by networkd, as everywhere: the machine's own network has nothing to do with theirs.
    system.stateVersion = pkgs.lib.trivial.release;
  };

  testScript = ''
    machine.wait_for_unit("multi-user.target")
    machine.succeed("mkdir /tmp/out /tmp/work")
    status, output = machine.execute("TMPDIR=/tmp/work ${run} /tmp/out 2>&1", timeout=None)
    print(output)
    machine.copy_from_vm("/tmp/out", "")
    assert status == 0, f"pytest ended with {status}"
  '';
}
