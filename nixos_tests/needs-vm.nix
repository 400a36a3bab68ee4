# A test that only a virtual machine can run: it has a kernel module, options of QEMU, and looks at the screen.
{
  name = "needs-vm";

  nodes.machine =
    { ... }:
    {
      boot.kernelModules = [ "loop" ];
      virtualisation.qemu.options = [ "-vga none" ];
    };

  testScript = ''
    machine.wait_for_unit("multi-user.target")
    machine.screenshot("desktop")
    machine.send_key("ctrl-alt-delete")
  '';
}
