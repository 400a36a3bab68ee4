# A secret of the host, handed to a service in the container: neither of them has it in its store.
{
  imports = [ ../host.nix ];

  nixos-nspawn.containers.trusted = {
    credentials.token = "/var/lib/secrets/token";
    config = {
      systemd.services.reader = {
        description = "Read the token";
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          LoadCredential = "token";
          DynamicUser = true;
        };
        script = ''
          echo "the token has $(wc -c < "$CREDENTIALS_DIRECTORY/token") bytes"
        '';
      };
    };
  };

  # Here from systemd-tmpfiles; on a real host from whatever keeps its secrets.
  systemd.tmpfiles.rules = [
    "d /var/lib/secrets 0700 root root -"
    "f /var/lib/secrets/token 0600 root root - swordfish"
  ];
}
