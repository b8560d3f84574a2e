"""The address of this machine in its network."""

import socket

import pytest

from voicecare.core.lan import lan_address, lan_hosts


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "localhost", "::1"])
def test_others_do_not_reach_this_machine_itself(host: str):
    assert lan_address(host) is None
    assert lan_hosts(host) == []


def test_a_server_on_one_address_is_reached_there():
    assert lan_address("192.168.1.20") == "192.168.1.20"
    assert lan_hosts("192.168.1.20")[0] == "192.168.1.20"


def test_a_server_on_all_addresses_is_reached_at_one_of_this_machine():
    address = lan_address("0.0.0.0")
    if address is None:
        pytest.skip("this machine has no network")
    with socket.socket() as probe:
        probe.bind((address, 0))  # fails for an address of another machine
    assert socket.gethostname().lower() in lan_hosts("0.0.0.0")
