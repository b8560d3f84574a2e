"""The folder broker delivers messages, and a waiting reader returns often so that the worker can stop."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection, Consumer, Producer, Queue

QUEUE = Queue("celery")


MESSAGES = 20
LARGE = "x" * 1_000_000  # large, so that writing takes a while


def connect(folder: Path, polling_s: float = 0.05) -> Connection:
    folders = dict.fromkeys(("data_folder_in", "data_folder_out", "control_folder"), str(folder))
    return Connection("folder://", transport_options={**folders, "polling_interval": polling_s})


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with connect(tmp_path) as connection:
        yield connection


def test_a_sent_message_is_received(connection: Connection):
    received: list[object] = []
    Producer(connection).publish({"id": 7}, routing_key="celery", declare=[QUEUE])
    with Consumer(connection, [QUEUE], callbacks=[lambda body, message: received.append(body)]):
        connection.drain_events(timeout=2)
    assert received == [{"id": 7}]


def test_a_reader_never_receives_a_partly_written_message(tmp_path: Path):
    """Half a message is invalid JSON and would end the worker."""
    received: list[object] = []
    with connect(tmp_path, 0.0001) as reader, connect(tmp_path, 0.0001) as writer:
        sending = threading.Thread(target=_send, args=(writer, MESSAGES))
        with Consumer(reader, [QUEUE], callbacks=[lambda body, message: received.append(len(body))]):
            sending.start()
            while len(received) < MESSAGES:
                reader.drain_events(timeout=10)
        sending.join()
    assert received == [len(LARGE)] * MESSAGES
    assert not list(tmp_path.glob("*.part"))


def _send(connection: Connection, count: int) -> None:
    for _ in range(count):
        Producer(connection).publish(LARGE, routing_key="celery", declare=[QUEUE])


def test_a_read_with_a_long_timeout_returns_early(connection: Connection):
    with Consumer(connection, [QUEUE]), pytest.raises(socket.timeout):
        connection.drain_events(timeout=3600)
