# State that survives a restart of the container, and a file of the host that it can only read.
{
  imports = [ ../host.nix ];

  systemd.tmpfiles.rules = [ "d /var/lib/counter 0755 root root -" ];

  nixos-nspawn.containers.stateful = {
    binds = {
      # Its root is root there, though it is another user on the host.
      "/var/lib/counter" = {
        readOnly = false;
        options = [ "idmap" ];
      };
      "/run/host-release".hostPath = "/etc/os-release";
    };
    config =
      { pkgs, ... }:
      {
        systemd.services.counter = {
          description = "Count the starts";
          wantedBy = [ "multi-user.target" ];
          serviceConfig.Type = "oneshot";
          script = "echo started >> /var/lib/counter/starts";
        };
      };
  };
}
