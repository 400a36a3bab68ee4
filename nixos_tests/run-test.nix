# A test as projects with a flake write it: through runNixOSTest, as a module with arguments of its own.
{ pkgs, ... }:
pkgs.testers.runNixOSTest (
  { lib, ... }:
  {
    name = "run-test";
    globalTimeout = 600;

    nodes = lib.mapAttrs (name: greeting: { environment.etc."greeting".text = greeting; }) {
      german = "Guten Tag";
      french = "Bonjour";
    };

    testScript =
      { nodes, ... }:
      ''
        start_all()
        assert driver.global_timeout == 600
        for node in machines:
            node.wait_for_unit("multi-user.target")
        assert german.succeed("cat /etc/greeting") == "Guten Tag"
        assert french.succeed("cat /etc/greeting") == "${nodes.french.config.environment.etc."greeting".text
          or nodes.french.environment.etc."greeting".text
        }"
      '';
  }
)
