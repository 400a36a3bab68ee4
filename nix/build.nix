# The derivation that runs tests. `report`: whether a failed run is a result too, and not a failed build.
{ pkgs }:
{
  name,
  run,
  report,
}:

pkgs.runCommand name
  {
    # Root in namespaces of the build's own, with 65536 ids and a control group: see docs/flake.md.
    requiredSystemFeatures = [ "uid-range" ];
    nativeBuildInputs = [ pkgs.util-linux or pkgs.utillinux ];
  }
  ''
    # What a machine has and a build has not; it is gone with the build.
    mkdir -p /run
    if ! grep -q ' cgroup2 ' /proc/self/mounts; then
      mount -t cgroup2 cgroup2 /sys/fs/cgroup
    fi

    mkdir "$out"
    status=0
    ${run} "$out" || status=$?
    ${
      if report then
        ''
          echo "$status" >"$out/status"
        ''
      else
        ''
          if [ "$status" != 0 ]; then
            echo "pytest ended with $status." >&2
            echo "To keep the results and what failed nodes wrote, build the attribute .report of this test." >&2
            exit "$status"
          fi
        ''
    }
  ''
