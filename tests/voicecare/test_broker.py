"""A folder as the broker: what is sent arrives, and who waits for more is asked often whether to stop."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection, Consumer, Producer, Queue

QUEUE = Queue("celery")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    folders = dict.fromkeys(("data_folder_in", "data_folder_out", "control_folder"), str(tmp_path))
    with Connection("folder://", transport_options={**folders, "polling_interval": 0.05}) as connection:
        yield connection


def test_what_is_sent_arrives(connection: Connection):
    got: list[object] = []
    Producer(connection).publish({"id": 7}, routing_key="celery", declare=[QUEUE])
    with Consumer(connection, [QUEUE], callbacks=[lambda body, message: got.append(body)]):
        connection.drain_events(timeout=2)
    assert got == [{"id": 7}]


def test_nobody_waits_for_long_in_one_go(connection: Connection):
    with Consumer(connection, [QUEUE]), pytest.raises(socket.timeout):
        connection.drain_events(timeout=3600)
