"""A web server and a client: the smallest test that needs two systems."""

import pytest

from fixtures.web_server import web_server
from pytest_nspawn import Machine, Node


@pytest.mark.nodes(server=web_server("hello from the server\n"), client=Node())
def test_a_client_reads_the_page(server: Machine, client: Machine) -> None:
    server.wait_for_unit("web.service")
    server.wait_for_open_port(80)
    assert client.succeed("curl --fail --silent http://server/") == "hello from the server\n"


@pytest.mark.nodes(server=web_server())
def test_the_test_process_reads_the_page(server: Machine) -> None:
    server.wait_for_open_port(80)
    with server.connect_tcp(80) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200 OK" in connection.recv(4096)
