# What the script imports beside the standard library: a module, and one that it needs.
{ pkgs, ... }:
{
  name = "python-packages";

  nodes.machine = { };

  extraPythonPackages =
    python:
    let
      module =
        name: text:
        python.toPythonModule (pkgs.writeTextDir "${python.python.sitePackages}/${name}.py" text);
    in
    [
      (module "motd_words" "WORDS = 'spoken by a module'")
      (module "motd" ''
        from motd_words import WORDS


        def say(machine):
            machine.succeed(f"echo {WORDS} > /tmp/motd")
            return machine.succeed("cat /tmp/motd").rstrip()
      '')
    ];

  testScript = ''
    import motd

    assert motd.say(machine) == "spoken by a module"
  '';
}
