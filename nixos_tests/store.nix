# A node that may write to its store: it has its system, what the test adds, and what the script names.
{ pkgs, ... }:
let
  added = pkgs.writeText "added" "added by the test";
  named = pkgs.writeText "named" "named by the script";
  other = pkgs.writeText "other" "of no node";
in
{
  name = "store";

  nodes.own = {
    virtualisation.writableStore = true;
    virtualisation.additionalPaths = [ added ];
  };
  nodes.shared = { };

  testScript = ''
    with subtest("every node sees what the script names"):
        for node in (own, shared):
            assert node.succeed("cat ${named}") == "named by the script"

    with subtest("a store of its own has what is added, and knows it"):
        assert own.succeed("cat ${added}") == "added by the test"
        own.succeed("nix-store --query --hash ${added}")

    with subtest("and nothing else"):
        own.fail("ls ${builtins.unsafeDiscardStringContext other}")

    with subtest("it can be written to"):
        own.succeed("echo new > /root/new")
        path = own.succeed("nix-store --add /root/new").strip()
        assert own.succeed(f"cat {path}") == "new\n"
        shared.fail(f"ls {path}")
  '';
}
