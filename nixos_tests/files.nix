# Files between the machine that runs the tests and the nodes, and from node to node.
{ pkgs, ... }:
let
  letter = builtins.toFile "letter.txt" "from outside\n";
in
{
  name = "files";

  nodes = {
    one = { ... }: { };
    two = { ... }: { };
  };

  testScript = ''
    import pathlib
    import tempfile

    start_all()
    one.wait_for_unit("multi-user.target")
    two.wait_for_unit("multi-user.target")

    with subtest("into a node"):
        one.copy_from_host("${letter}", "/root/letter")
        assert one.succeed("cat /root/letter") == "from outside\n"
        one.copy_from_host_via_shell("${letter}", "/root/other")
        one.succeed("cmp /root/letter /root/other")

    with subtest("a directory, and back"):
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name) / "tree"
            (directory / "deep").mkdir(parents=True)
            (directory / "deep" / "leaf").write_text("green")
            one.copy_from_host(str(directory), "/root/tree")
        assert one.succeed("cat /root/tree/deep/leaf") == "green"
        one.copy_from_vm("/root/tree", "fetched")
        assert (pathlib.Path(driver.out_dir) / "fetched" / "tree" / "deep" / "leaf").read_text() == "green"

    with subtest("from node to node"):
        one.succeed("echo shared > /tmp/shared/parcel")
        assert two.succeed("cat /tmp/shared/parcel") == "shared\n"
        two.wait_for_file("/tmp/shared/parcel")
        assert (one.shared_dir / "parcel").exists()
  '';
}
