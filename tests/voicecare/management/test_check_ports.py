"""`make run` reports a port that is in use before it starts any process."""

import socket

import pytest
from django.core.management import CommandError, call_command

from tests.server import free_port


def test_a_host_of_another_machine_is_refused():
    with pytest.raises(CommandError, match=r"192\.0\.2\.1 is no IPv4 address of this machine"):
        call_command("check_ports", free_port(), host="192.0.2.1")


def test_free_ports_pass():
    call_command("check_ports", free_port(), free_port())


def test_a_port_in_use_is_reported_with_a_solution():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(CommandError, match=rf"Port {port} is in use.*PORT=9000 make run"):
            call_command("check_ports", free_port(), port)


@pytest.mark.parametrize("port", [0, 65536, 70000])
def test_an_invalid_port_number_is_refused_with_the_valid_range(port: int):
    with pytest.raises(CommandError, match=rf"^{port} is not a port. Ports are from 1 to 65535"):
        call_command("check_ports", free_port(), port)


def test_a_port_that_was_just_closed_is_free():
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
        pass
    server.close()
    call_command("check_ports", port)
