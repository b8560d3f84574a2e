"""Messages through a real child process to real servers, also to those that refuse, hang or answer drop by drop."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.usage.alerts.postbox import Webhook
from usage.alerts.notifications import sender, worker
from usage.alerts.notifications.sender import ChannelFailed, Sender

SECRET = "s3cr3t-t0ken"


def address(service: Webhook) -> str:
    return f"json://user:{SECRET}@{service.url.removeprefix('http://').partition('/')[0]}/{SECRET}/?x={SECRET}"


def why_not(url: str) -> str:
    with Sender(url) as process, pytest.raises(ChannelFailed) as failure:
        process.send("Title", "Body", "warning")
    return str(failure.value)


@contextmanager
def dripping() -> Iterator[str]:
    """A service that sends a byte of its answer every 0.1 s, so that no read takes long."""
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection:
            while not stop.wait(0.1):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            threading.Thread(target=drip, args=[listener.accept()[0]], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"json://127.0.0.1:{listener.getsockname()[1]}"
        stop.set()


def test_several_messages_go_through_one_process():
    with Webhook() as service, Sender(address(service)) as process:
        process.send("First: ä", "Line one\nline two", "failure")
        process.send("Second", "Body", "success")
    assert [(body["title"], body["message"], body["type"]) for body in service.received] == [
        ("First: ä", "Line one\nline two", "failure"),
        ("Second", "Body", "success"),
    ]


@pytest.mark.parametrize("status", [302, 401, 404, 500])
def test_a_refusal_is_told_with_its_number_and_without_the_secret(status: int):
    with Webhook() as service:
        service.status = status
        assert why_not(address(service)) == f"The service refused the message (HTTP {status})."
    assert service.asked == 1  # a redirect is not followed


def test_a_service_that_is_not_there_is_told_without_the_secret():
    assert why_not(f"json://user:{SECRET}@127.0.0.1:1/{SECRET}") == "The service could not be reached."


def test_a_service_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sender, "SEND_TIMEOUT_S", 1.0)
    with dripping() as url:
        began = time.monotonic()
        assert why_not(url) == "The service did not answer within 1 s."
    assert time.monotonic() - began < sender.START_TIMEOUT_S + 5


def test_a_process_that_was_given_up_is_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sender, "SEND_TIMEOUT_S", 1.0)
    with Webhook() as service, Sender(address(service)) as process:
        service.hang_s = 2.0
        with pytest.raises(ChannelFailed):
            process.send("First", "Body", "warning")
        service.hang_s = 0.0
        monkeypatch.setattr(sender, "SEND_TIMEOUT_S", 10.0)
        process.send("Second", "Body", "warning")
        assert service.received[-1]["title"] == "Second"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense://a", worker.UNKNOWN_SCHEME),
        ("https-wrong", worker.UNKNOWN_SCHEME),
        ("", worker.UNKNOWN_SCHEME),
        ("slack://x", worker.MALFORMED),
        ("json://", worker.MALFORMED),
    ],
)
def test_a_wrong_address_is_explained(url: str, problem: str):
    with Sender(url) as process, pytest.raises(ChannelFailed, match="^" + problem[:20]):
        process.check()


@pytest.mark.parametrize(
    "url",
    [
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
        "ntfys://topic/",
        "twilio://AC735c307c62944b5a:e29dfbcebf390dee9@12223334444/15556667777/",
        "pagerduty://A1BRTD4JD@A1BRTD4JDintegrationkey/",
        "workflows://prod-00.example.org:443/643ceeb1/sKtJ0-a-signature/",
    ],
)
def test_addresses_of_the_documented_services_are_accepted(url: str):
    with Sender(url) as process:
        process.check()


def test_proxies_and_passwords_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Webhook() as service, Sender(address(service)) as process:
        process.send("Title", "Body", "warning")
    assert len(service.received) == 1
