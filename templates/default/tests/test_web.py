import pytest

from pytest_nspawn import Machine


@pytest.mark.nodes(web="../web.nix")
def test_the_page_is_served(web: Machine) -> None:
    web.wait_for_unit("web.service")
    web.wait_for_open_port(80)
    with web.connect_tcp(80) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.endswith(b"hello")
