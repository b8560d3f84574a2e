"""Deliveries to a real receiver that refuses, hangs, dies and redirects, and workers that are killed."""

import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member, database_url
from tests.server import ROOT, environment
from tests.voicecare.health.test_public_url import self_signed
from tests.voicecare.webhooks.receiver import DIE, DRIP, Receiver, is_signed
from tests.waiting import until
from usage.models import Incident
from voicecare.core import http_post
from voicecare.patients.models import Clinic, Patient
from voicecare.webhooks import delivery, events
from voicecare.webhooks.events import Subject
from voicecare.webhooks.models import (
    MAX_ATTEMPTS,
    EventType,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)

pytestmark = pytest.mark.django_db(transaction=True)

PAST = timezone.now() - timedelta(days=2)
MakeEndpoint = Callable[..., WebhookEndpoint]


def emit(patient: Patient, object_id: uuid.UUID | None = None, number: int = 0) -> None:
    key = object_id or uuid.uuid4()
    events.emit(EventType.DEVICE_OFFLINE, [Subject(key, patient.pk, {"id": key, "number": number})])


def retry() -> None:
    """Make all pending deliveries due, and send them."""
    WebhookEndpoint.objects.update(sending_until=None)
    WebhookDelivery.objects.update(next_attempt_at=PAST)
    delivery.deliver()


def attempts() -> list[tuple[int | None, str]]:
    return list(WebhookAttempt.objects.order_by("delivery", "number").values_list("status_code", "problem"))


def only() -> WebhookDelivery:
    return WebhookDelivery.objects.get()


def test_a_message_is_signed_and_has_the_documented_fields(alice: Member, receiver: Receiver, endpoint: MakeEndpoint):
    endpoint()
    Patient.objects.update(external_id="MRN-1")
    emit(alice.patient)
    delivery.deliver()
    (key, body), headers = receiver.messages[0], receiver.headers[0]
    event = WebhookEvent.objects.get()
    assert receiver.forged == 0
    assert key == body["id"] == str(event.pk)
    assert set(body) == {"id", "type", "timestamp", "data"}
    assert body["type"] == "device.offline"
    assert (body["data"]["patient"], body["data"]["external_id"]) == (str(alice.patient.pk), "MRN-1")
    assert headers["content-type"] == "application/json"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert "Alice" not in str(body)
    assert (only().status, attempts()) == ("delivered", [(204, "")])


def test_another_secret_or_body_does_not_verify(alice: Member, receiver: Receiver, endpoint: MakeEndpoint):
    row = endpoint()
    body = "{}"
    headers = delivery.signed_headers(row, "an-id", body, timezone.now())
    assert is_signed(row.secret, body.encode(), headers)
    assert not is_signed(row.secret, b"{ }", headers)
    assert not is_signed(WebhookEndpoint().new_secret(), body.encode(), headers)
    assert not is_signed(row.secret, body.encode(), {**headers, "webhook-id": "other"})


def documented_check() -> Any:
    """The check that docs/webhooks.md recommends to receivers."""
    page = (ROOT / "docs" / "webhooks.md").read_text()
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    return names["is_ours"]


@pytest.mark.parametrize(
    ("is_right_secret", "seconds_ago", "change", "accepted"),
    [
        (True, 0, b"", True),
        (True, 299, b"", True),
        (True, 301, b"", False),
        (True, -301, b"", False),
        (False, 0, b"", False),
        (True, 0, b" ", False),
    ],
)
def test_the_documented_check_accepts_only_our_recent_messages(
    endpoint: MakeEndpoint, is_right_secret: bool, seconds_ago: int, change: bytes, accepted: bool
):
    row, now = endpoint(), timezone.now()
    old = row.secret
    row.renew_secret()
    headers = delivery.signed_headers(row, "an-id", "{}", now)
    for secret in (row.secret, old) if is_right_secret else [WebhookEndpoint().new_secret()]:
        is_ours = documented_check()(secret, headers, b"{}" + change, int(now.timestamp()) + seconds_ago)
        assert is_ours is accepted


def test_for_a_day_after_a_renewal_both_secrets_verify(alice: Member, receiver: Receiver, endpoint: MakeEndpoint):
    row = endpoint()
    old, new = row.secret, row.renew_secret()
    emit(alice.patient)
    delivery.deliver()
    assert old != new
    assert receiver.forged == 0  # the receiver has the old one
    receiver.secret = new
    emit(alice.patient)
    delivery.deliver()
    assert (receiver.forged, receiver.asked) == (0, 2)
    WebhookEndpoint.objects.update(previous_secret_until=PAST)
    receiver.secret = old
    emit(alice.patient)
    delivery.deliver()
    assert receiver.forged == 1


def test_a_certificate_that_is_not_trusted_is_said(
    alice: Member, receiver: Receiver, endpoint: MakeEndpoint, tmp_path: Path
):
    tls, _ = self_signed(tmp_path, days=30)
    receiver.server.socket = tls.wrap_socket(receiver.server.socket, server_side=True)
    endpoint(url=receiver.url.replace("http://127.0.0.1", "https://localhost"))
    emit(alice.patient)
    delivery.deliver()
    assert attempts() == [(None, "certificate")]
    assert receiver.asked == 0


@pytest.mark.parametrize(
    ("status", "hang_s", "logged"),
    [
        (503, 0, (503, "refused")),
        (404, 0, (404, "refused")),
        (302, 0, (302, "redirect")),
        (307, 0, (307, "redirect")),
        (DIE, 0, (None, "unreachable")),
        (DRIP, 0, (None, "timeout")),
        (204, 3, (None, "timeout")),
    ],
)
def test_a_failed_attempt_is_logged_and_repeated(
    alice: Member,
    receiver: Receiver,
    endpoint: MakeEndpoint,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    hang_s: float,
    logged: tuple[int | None, str],
):
    monkeypatch.setattr(http_post, "TIMEOUT_S", 0.5)
    endpoint()
    receiver.answer, receiver.hang_s = lambda _: status, hang_s
    emit(alice.patient)
    delivery.deliver()
    assert (only().status, attempts(), set(receiver.paths)) == ("pending", [logged], {"/hooks"})
    assert only().next_attempt_at > timezone.now()
    monkeypatch.setattr(http_post, "TIMEOUT_S", 10)
    receiver.answer, receiver.hang_s = lambda _: 200, 0
    delivery.deliver()
    assert receiver.asked == 1  # not due yet
    retry()
    assert (only().status, attempts()) == ("delivered", [logged, (200, "")])
    assert len({headers["webhook-id"] for headers in receiver.headers}) == 1
    assert WebhookEndpoint.objects.get().failures == 0


def test_only_a_short_excerpt_of_a_response_is_kept(alice: Member, receiver: Receiver, endpoint: MakeEndpoint):
    endpoint()
    receiver.answer, receiver.body = lambda _: 500, b"Bad\x00\x1b[31m\nthing \xff" + b"x" * 100_000
    emit(alice.patient)
    delivery.deliver()
    excerpt = WebhookAttempt.objects.get().excerpt
    assert excerpt.startswith("Bad [31m thing")
    assert len(excerpt) == 200
    receiver.answer = lambda _: 200
    retry()
    assert list(WebhookAttempt.objects.filter(number=2).values_list("excerpt", flat=True)) == [""]


def test_a_delivery_is_given_up_after_about_a_day(alice: Member, receiver: Receiver, endpoint: MakeEndpoint):
    endpoint()
    receiver.answer = lambda _: 500
    emit(alice.patient)
    delivery.deliver()
    for _ in range(MAX_ATTEMPTS + 3):
        retry()
    assert (only().status, only().attempts, receiver.asked) == ("failed", MAX_ATTEMPTS, MAX_ATTEMPTS)
    total = sum((delivery.retry_delay(number) for number in range(1, MAX_ATTEMPTS)), timedelta())
    assert timedelta(hours=16) < total < timedelta(hours=28)
    assert timedelta(seconds=4) <= delivery.retry_delay(1) <= timedelta(seconds=6)


def test_a_given_up_event_can_be_sent_again_with_the_same_id(alice: Member, receiver: Receiver, endpoint: MakeEndpoint):
    endpoint()
    receiver.answer = lambda _: 500
    emit(alice.patient)
    WebhookDelivery.objects.update(last_attempt=1)
    delivery.deliver()
    assert only().status == "failed"
    receiver.answer = lambda _: 200
    delivery.send_again(only())
    delivery.deliver()
    assert (only().status, attempts()) == ("delivered", [(500, "refused"), (200, "")])
    assert len({headers["webhook-id"] for headers in receiver.headers}) == 1


def test_a_test_event_is_sent_once(db: None, receiver: Receiver, endpoint: MakeEndpoint):
    row = endpoint(events=["clone.ready"])
    receiver.answer = lambda _: 500
    events.emit_test(row)
    delivery.deliver()
    assert (only().status, receiver.asked, receiver.forged) == ("failed", 1, 0)


def test_an_endpoint_that_fails_often_and_for_a_day_is_disabled_with_an_incident(
    alice: Member, receiver: Receiver, endpoint: MakeEndpoint
):
    row = endpoint()
    receiver.answer = lambda _: 500
    WebhookEndpoint.objects.update(failures=delivery.FAILURES_BEFORE_DISABLING - 1, failing_since=timezone.now())
    emit(alice.patient)
    delivery.deliver()
    assert WebhookEndpoint.objects.get().enabled  # often, but not for a day
    WebhookEndpoint.objects.update(failing_since=PAST)
    retry()
    incident = Incident.objects.get(kind="webhook")
    assert (WebhookEndpoint.objects.get().enabled, incident.key, incident.resolved_at) == (False, str(row.pk), None)
    assert receiver.url not in incident.detail
    emit(alice.patient)
    retry()
    assert (receiver.asked, WebhookDelivery.objects.count(), only().status) == (2, 1, "pending")
    receiver.answer = lambda _: 200
    WebhookEndpoint.objects.update(enabled=True)
    retry()
    incident.refresh_from_db()
    assert incident.resolved_at is not None
    assert (only().status, WebhookEndpoint.objects.get().disabled_at) == ("delivered", None)


def test_a_hanging_endpoint_does_not_delay_another_one(
    alice: Member, receiver: Receiver, endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch
):
    with Receiver() as other:
        monkeypatch.setattr(http_post, "TIMEOUT_S", 4)
        other.hang_s = 6
        endpoint()
        endpoint(url=other.url)
        emit(alice.patient)
        running = threading.Thread(target=delivery.deliver)
        running.start()
        until(lambda: receiver.messages, within_s=3)
        assert running.is_alive()
        running.join()


def test_an_endpoint_that_does_not_answer_is_left_alone_for_a_minute(
    alice: Member, receiver: Receiver, endpoint: MakeEndpoint
):
    """Otherwise each event would keep another worker busy until the time limit."""
    endpoint()
    receiver.answer = lambda _: DIE
    for _ in range(delivery.BATCH_SIZE + 5):
        emit(alice.patient)
    delivery.deliver()
    delivery.deliver()
    assert receiver.asked == delivery.BATCH_SIZE
    receiver.answer = lambda _: 200
    WebhookEndpoint.objects.update(sending_until=PAST)
    WebhookDelivery.objects.filter(attempts=1).update(next_attempt_at=timezone.now() + timedelta(days=1))
    delivery.deliver()
    assert len(receiver.messages) == 5


@pytest.mark.timeout(300)
def test_a_worker_that_is_killed_loses_nothing(
    alice: Member, receiver: Receiver, endpoint: MakeEndpoint, tmp_path: Path
):
    endpoint()
    emit(alice.patient)
    receiver.hang_s = 60
    code = "import django; django.setup(); from voicecare.webhooks import delivery; delivery.deliver()"
    env = environment(
        DATABASE_URL=database_url(),
        VOICECARE_DATA_DIR=tmp_path,
        SECRET_KEY=project.SECRET_KEY,
        DJANGO_SETTINGS_MODULE="voicecare.settings",
        WEBHOOK_ALLOW_PRIVATE="1",
    )
    with subprocess.Popen([sys.executable, "-c", code], env=env, cwd=ROOT) as worker:
        until(lambda: receiver.asked, within_s=200)
        worker.kill()
    receiver.hang_s = 0
    retry()
    assert receiver.asked == 1  # the lease of the killed worker
    WebhookDelivery.objects.update(lease_until=PAST)
    retry()
    assert (only().status, attempts()) == ("delivered", [(None, ""), (204, "")])
    assert WebhookAttempt.objects.get(number=1).duration_ms is None
    assert len({headers["webhook-id"] for headers in receiver.headers}) == 1


def test_twenty_sweeps_at_the_same_time_send_each_event_once(
    alice: Member, receiver: Receiver, endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(http_post, "TIMEOUT_S", 60)  # on a busy machine
    endpoint()
    for _ in range(40):
        emit(alice.patient)
    receiver.hang_s = 0.02
    run_together([delivery.deliver] * 20)
    while WebhookDelivery.objects.filter(status="pending").exists():
        delivery.deliver()
    keys = [key for key, _ in receiver.messages]
    assert (len(keys), len(set(keys)), receiver.forged) == (40, 40, 0)
    assert set(WebhookDelivery.objects.values_list("attempts", flat=True)) == {1}
    assert WebhookAttempt.objects.count() == 40


def run_together(calls: list[Callable[[], Any]]) -> None:
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            call()
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.timeout(600)
def test_a_thousand_events_through_a_receiver_that_fails_half_of_the_time(
    alice: Member, receiver: Receiver, endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch
):
    """Each is delivered with a valid signature, in order for each object."""
    monkeypatch.setattr(http_post, "TIMEOUT_S", 60)  # on a busy machine
    endpoint()
    objects = [uuid.uuid4() for _ in range(50)]
    for number in range(20):
        events.emit(
            EventType.DEVICE_OFFLINE, [Subject(key, alice.patient.pk, {"id": key, "number": number}) for key in objects]
        )
    receiver.answer = lambda number: 200 if number % 2 else 503
    WebhookDelivery.objects.update(last_attempt=1000)
    while WebhookDelivery.objects.exclude(status="delivered").exists():
        retry()
    numbers = defaultdict(list)
    for _, body in receiver.messages:
        numbers[body["data"]["id"]].append(body["data"]["number"])
    assert len({key for key, _ in receiver.messages}) == len(receiver.messages) == 1000
    assert numbers == {str(key): list(range(20)) for key in objects}
    assert receiver.forged == 0


def test_an_event_waits_while_its_patient_is_to_be_erased(alice: Member, receiver: Receiver, endpoint: MakeEndpoint):
    endpoint()
    emit(alice.patient)
    Patient.objects.update(erases_at=timezone.now() + timedelta(days=1))
    retry()
    assert receiver.asked == 0
    Patient.objects.update(erases_at=None)
    retry()
    assert only().status == "delivered"


def test_an_event_is_cancelled_if_its_patient_has_left_the_clinic(
    alice: Member, receiver: Receiver, endpoint: MakeEndpoint
):
    clinic = Clinic.objects.create(name="Ward 3")
    Patient.objects.update(clinic=clinic)
    endpoint(clinic=clinic)
    emit(alice.patient)
    Patient.objects.update(clinic=None)
    retry()
    assert (only().status, receiver.asked, attempts()) == ("cancelled", 0, [])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_private_addresses_are_not_reached(
    alice: Member, receiver: Receiver, endpoint: MakeEndpoint, settings: Settings, host: str
):
    settings.WEBHOOK_ALLOW_PRIVATE = False
    endpoint(url=f"http://{host}:{receiver.port}/hooks")
    emit(alice.patient)
    delivery.deliver()
    assert (receiver.asked, attempts()) == (0, [(None, "private_address")])
