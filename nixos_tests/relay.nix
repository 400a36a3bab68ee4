# A protocol over three machines: each adds its name to a message and hands it to the next.
{ lib, ... }:
let
  order = [ "alpha" "beta" "gamma" ];

  station =
    name: next:
    { pkgs, ... }:
    {
      networking.firewall.allowedTCPPorts = [ 7000 ];
      systemd.services.station = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 ${pkgs.writeText "station.py" ''
          import socket

          listener = socket.create_server(("", 7000))
          while True:
              connection, _ = listener.accept()
              try:
                  with connection:
                      message = connection.makefile().readline().strip()
                      if not message:
                          continue  # who only looks whether the port is open
                      message += " ${name}"
                      if "${next}":
                          with socket.create_connection(("${next}", 7000), timeout=2) as onward:
                              onward.sendall(message.encode() + b"\n")
                              message = onward.makefile().readline().strip()
                      connection.sendall(message.encode() + b"\n")
              except OSError as error:
                  print(error, flush=True)
        ''}";
      };
      environment.systemPackages = [ pkgs.python3 ];
    };

  next = name: { alpha = "beta"; beta = "gamma"; gamma = ""; }.${name};
in
{
  name = "relay";

  nodes = lib.genAttrs order (name: station name (next name));

  testScript = ''
    start_all()

    for station in machines:
        station.wait_for_unit("station.service")
        station.wait_for_open_port(7000)

    send = (
        "python3 -c '"
        "import socket; "
        "line = socket.create_connection((\"localhost\", 7000), timeout=20); "
        "line.sendall(b\"from\\n\"); "
        "print(line.makefile().readline().strip() or exit(1))'"
    )
    t.assertEqual("from alpha beta gamma\n", alpha.succeed(send))
    t.assertEqual("from beta gamma\n", beta.succeed(send))

    # The chain breaks where a station is away, and mends when it comes back.
    gamma.shutdown()
    beta.wait_until_fails(send)
    gamma.start()
    gamma.wait_for_open_port(7000)
    assert alpha.wait_until_succeeds(send, timeout=60) == "from alpha beta gamma\n"
  '';
}
