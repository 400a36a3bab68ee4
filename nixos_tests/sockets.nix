# Socket activation: nothing runs before somebody asks.
{
  name = "sockets";

  nodes.machine =
    { pkgs, ... }:
    {
      systemd.sockets.echo = {
        wantedBy = [ "sockets.target" ];
        listenStreams = [ "7" ];
        socketConfig.Accept = true;
      };
      systemd.services."echo@".serviceConfig = {
        ExecStart = "${pkgs.coreutils}/bin/cat";
        StandardInput = "socket";
      };

      systemd.sockets.local = {
        wantedBy = [ "sockets.target" ];
        listenStreams = [ "/run/local.socket" ];
      };
      systemd.services.local.serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep 1000";

      systemd.sockets.letters = {
        wantedBy = [ "sockets.target" ];
        socketConfig.ListenDatagram = "/run/letters.socket";
      };
      systemd.services.letters.serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep 1000";

      environment.systemPackages = [ pkgs.python3 ];
    };

  testScript = ''
    machine.wait_for_unit("sockets.target")

    with subtest("a TCP socket starts a service for each connection"):
        machine.wait_for_open_port(7)
        ask = (
            "python3 -c 'import socket; "
            "line = socket.create_connection((\"localhost\", 7)); "
            "line.sendall(b\"who is there\\n\"); "
            "print(line.recv(100).decode(), end=\"\")'"
        )
        t.assertEqual("who is there\n", machine.succeed(ask))

    with subtest("a Unix socket is open before its service runs"):
        machine.require_unit_state("local.socket")
        machine.require_unit_state("local.service", "inactive")
        machine.wait_for_open_unix_socket("/run/local.socket")
        machine.wait_for_unit("local.service")

    with subtest("a datagram socket too"):
        machine.require_unit_state("letters.service", "inactive")
        machine.wait_for_open_unix_socket("/run/letters.socket", is_datagram=True)

    with subtest("a socket that is stopped is closed"):
        machine.stop_job("echo.socket")
        machine.wait_for_closed_port(7)
  '';
}
