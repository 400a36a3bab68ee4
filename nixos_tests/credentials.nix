# Secrets that systemd hands to a service, and to nobody else.
{
  name = "credentials";

  nodes.machine =
    { ... }:
    {
      environment.etc."secrets/token" = {
        text = "sesame";
        mode = "0400";
      };
      users.users.guest.isNormalUser = true;
      # What the machine itself is given.
      virtualisation.credentials.answer.text = "yes";
      systemd.services.keeper = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          DynamicUser = true;
          StateDirectory = "keeper";
          LoadCredential = [
            "token:/etc/secrets/token"
            "answer"
          ];
          SetCredential = "motto:open";
        };
        script = ''
          cat "$CREDENTIALS_DIRECTORY/motto" > /var/lib/keeper/said
          echo -n " " >> /var/lib/keeper/said
          cat "$CREDENTIALS_DIRECTORY/token" >> /var/lib/keeper/said
          cat "$CREDENTIALS_DIRECTORY/answer" > /var/lib/keeper/answer
        '';
      };
    };

  testScript = ''
    machine.wait_for_unit("keeper.service")
    t.assertEqual("open sesame", machine.succeed("cat /var/lib/keeper/said"))
    assert machine.succeed("cat /etc/secrets/token") == "sesame"
    assert machine.succeed("cat /var/lib/keeper/answer") == "yes"
    machine.fail("su - guest -c 'cat /etc/secrets/token'")
    machine.fail("su - guest -c 'cat /run/credentials/keeper.service/token'")
  '';
}
