"""`make run` says which port is taken before it starts anything."""

import socket

import pytest
from django.core.management import CommandError, call_command

from tests.server import free_port


def test_free_ports_pass():
    call_command("check_ports", free_port(), free_port())


def test_a_taken_port_is_named_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"Port {port} is taken.*PORT=9000 make run"):
            call_command("check_ports", free_port(), port)


@pytest.mark.parametrize("port", [0, 65536, 70000])
def test_a_number_that_is_no_port_is_refused_in_words(port: int):
    with pytest.raises(CommandError, match=rf"^{port} is no port: it must be from 1 to 65535"):
        call_command("check_ports", free_port(), port)


def test_a_port_that_was_just_left_is_free():
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
        pass
    server.close()
    call_command("check_ports", port)
