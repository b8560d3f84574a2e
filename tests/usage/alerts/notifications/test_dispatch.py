"""Alerts through real notification channels: HTTP servers that receive what Apprise sends with json://."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import time, timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from tests.usage.alerts.postbox import MailServer, Webhook
from tests.usage.provider_state.test_circuit import run_concurrently, seconds_ago
from tests.waiting import until
from usage.alerts import dispatcher, incidents, responses
from usage.alerts.incidents import Kind
from usage.alerts.notifications import dispatch, sender
from usage.models import ChannelAlert, Incident, IncidentEvent, NotificationChannel
from voicecare.patients.models import Clinic, Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)  # each channel has a thread with its own connection

SECRET = "s3cr3t-t0ken"
WORKERS = 20


@pytest.fixture
def service() -> Iterator[Callable[[], Webhook]]:
    """Return a function that starts a service."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Webhook())
        wait_for_threads()


def channel(service: Webhook, name: str = "On call", options: str = "", **columns: Any) -> NotificationChannel:
    host = service.url.removeprefix("http://").partition("/")[0]
    url = f"json://user:{SECRET}@{host}/{SECRET}{options}"
    return NotificationChannel.objects.create(name=name, url=url, **columns)


def create_incident(kind: str = "quota", **columns: Any) -> Incident:
    """Create an incident whose alerts were not sent."""
    return Incident.objects.create(kind=kind, **columns)


def subjects(service: Webhook) -> list[str]:
    return [body["title"].removeprefix("voicecare: ") for body in service.received]


def wait_for_threads() -> None:
    """Wait until everything that an opened or resolved incident has started is finished."""
    until(lambda: not [t for t in threading.enumerate() if t.name in ("alerts", "notifications")], within_s=60)


def retry_after_pause() -> None:
    """Do what beat does after the pauses that follow failures."""
    NotificationChannel.objects.exclude(sending_until=None).update(sending_until=seconds_ago(1))
    ChannelAlert.objects.exclude(retry_at=None).update(retry_at=seconds_ago(1))
    dispatch.deliver()


# What is sent, and that it is sent once


def test_an_incident_is_sent_immediately_with_the_text_of_the_mail(service: Callable[[], Webhook]):
    chat = service()
    row = channel(chat)
    incidents.open_incident(Kind.QUOTA, detail="quota_exceeded, HTTP 401, request r1")
    until(lambda: chat.received, within_s=30)
    incidents.resolve_incident(Kind.QUOTA)
    wait_for_threads()
    assert subjects(chat) == ["credits exhausted", "resolved: credits exhausted"]
    assert [body["type"] for body in chat.received] == ["failure", "success"]
    for part in ("What to do:", "request r1", f"/admin/usage/incident/{Incident.objects.get().pk}/change/"):
        assert part in chat.received[0]["message"]
    assert IncidentEvent.objects.filter(kind="alert", channel="On call").count() == 2
    row.refresh_from_db()
    assert row.last_sent_at is not None
    assert (row.sending_until, row.last_error) == (None, "")


def test_of_many_workers_one_sends_each_message(service: Callable[[], Webhook]):
    chats = [service(), service()]
    for number, chat in enumerate(chats):
        channel(chat, f"Chat {number}")
    create_incident()
    create_incident("slow", resolved_at=timezone.now())
    run_concurrently(dispatch.deliver, WORKERS)
    for chat in chats:
        assert sorted(subjects(chat)) == ["credits exhausted", "high latency", "resolved: high latency"]


def test_a_channel_of_a_clinic_gets_incidents_of_this_clinic_only(
    service: Callable[[], Webhook], alice: Member, bob: Member
):
    ward, other = Clinic.objects.create(name="Ward 3"), Clinic.objects.create(name="Ward 4")
    Patient.objects.filter(pk=alice.patient.pk).update(clinic=ward)
    Patient.objects.filter(pk=bob.patient.pk).update(clinic=other)
    clone = Voice.objects.create(name="Anna", provider_id="anna", source="cloned", patient=alice.patient)
    chat = service()
    channel(chat, clinic=ward)
    mine = [create_incident("budget", key=str(key)) for key in (alice.patient.pk, ward.pk)]
    mine.append(create_incident("voice", key=str(clone.pk)))
    for key in (bob.patient.pk, other.pk):
        create_incident("budget", key=str(key))
    create_incident("quota")
    dispatch.deliver()
    assert {row.incident_id for row in ChannelAlert.objects.all()} == {incident.pk for incident in mine}
    Patient.objects.update(clinic=other)  # the end of what was reported is reported, whoever it belongs to now
    Incident.objects.update(resolved_at=timezone.now())
    dispatch.deliver()
    assert len([subject for subject in subjects(chat) if subject.startswith("resolved: ")]) == len(mine)


def test_a_regression_and_the_end_of_a_mute_are_sent(service: Callable[[], Webhook]):
    chat = service()
    channel(chat)
    incident = create_incident("request")
    dispatch.deliver()
    responses.mark_resolved(incident.pk, "ann")
    wait_for_threads()
    incidents.open_incident(Kind.REQUEST)
    wait_for_threads()
    assert responses.mute(incident.pk, "ann", timedelta(hours=1))
    Incident.objects.update(muted_until=timezone.now())
    retry_after_pause()
    rejects = "the speech provider rejects our requests (software defect)"
    assert subjects(chat) == [
        rejects,
        f"marked as resolved: {rejects}",
        f"open again: {rejects}",
        f"still open: {rejects}",
    ]


def test_a_reminder_by_mail_does_not_take_that_of_a_channel(service: Callable[[], Webhook], mail: MailServer):
    chat = service()
    channel(chat)
    create_incident(opening_sent_at=timezone.now())
    dispatch.deliver()
    Incident.objects.update(muted_until=timezone.now())
    dispatcher.retry_pending()
    assert Incident.objects.get().muted_until is None
    dispatch.deliver()
    assert subjects(chat) == ["credits exhausted", "still open: credits exhausted"]
    assert [message["Subject"] for _, message in mail.mails] == ["voicecare: still open: credits exhausted"]


def test_a_message_of_a_killed_process_is_sent_after_its_lease(service: Callable[[], Webhook]):
    chat = service()
    channel(chat, sending_until=timezone.now() + dispatch.LEASE)
    create_incident()
    dispatch.deliver()
    assert chat.asked == 0
    retry_after_pause()
    assert subjects(chat) == ["credits exhausted"]


def test_a_disabled_channel_sends_nothing(service: Callable[[], Webhook]):
    chat = service()
    channel(chat, enabled=False)
    create_incident()
    dispatch.deliver()
    assert (chat.asked, dispatch.is_configured()) == (0, False)


# Failing channels


def test_a_channel_that_hangs_delays_no_other(service: Callable[[], Webhook], monkeypatch: pytest.MonkeyPatch):
    """The other channel sends both messages while the first one is still in its first."""
    monkeypatch.setattr(sender, "SEND_TIMEOUT_S", 30.0)
    stuck, chat = service(), service()
    stuck.hang_s = 15.0
    channel(stuck, "Stuck", "?rto=60")
    channel(chat, "Chat")
    incidents.open_incident(Kind.QUOTA)
    incidents.open_incident(Kind.SLOW)
    until(lambda: stuck.asked, within_s=20)
    until(lambda: len(chat.received) == 2, within_s=20)
    assert stuck.received == []
    stuck.hang_s = 0.0
    wait_for_threads()
    assert (len(chat.received), len(stuck.received), stuck.asked) == (2, 2, 2)


def test_a_failing_channel_is_reported_through_the_others_and_never_by_itself(
    service: Callable[[], Webhook], webhook: Webhook, caplog: pytest.LogCaptureFixture
):
    broken, chat = service(), service()
    broken.status = 500
    row = channel(broken, "Broken")
    channel(chat, "Chat")
    create_incident(opening_sent_at=timezone.now())
    for _ in range(3):
        retry_after_pause()
    row.refresh_from_db()
    assert (row.failures, row.last_error) == (3, "The service refused the message (HTTP 500).")
    incident = Incident.objects.get(kind="channel")
    assert incident.key == str(row.pk)
    assert incident.detail == "Broken: 3 consecutive failures. The service refused the message (HTTP 500)."
    retry_after_pause()
    dispatcher.retry_pending()
    assert subjects(chat) == ["credits exhausted", "a notification channel fails"]
    assert [body["kind"] for body in webhook.received] == ["channel"]
    broken.status = 204
    retry_after_pause()
    incident.refresh_from_db()
    assert incident.resolved_at is not None
    dispatch.deliver()
    assert subjects(broken) == ["credits exhausted"]
    assert subjects(chat)[2:] == ["resolved: a notification channel fails"]
    said = caplog.text
    assert "notification.failed" in said
    told = [*(body["message"] for body in chat.received), *(body["text"] for body in webhook.received)]
    assert SECRET not in said + "".join(told)
    row.refresh_from_db()
    assert (row.failures, row.last_error) == (0, "")


def test_a_message_that_a_service_never_takes_does_not_hold_up_the_others(service: Callable[[], Webhook]):
    chat = service()
    channel(chat)
    create_incident()
    chat.status = 400
    dispatch.deliver()
    chat.status = 204
    create_incident("slow")
    NotificationChannel.objects.update(sending_until=None)  # the pause of the channel is over, that of the message not
    dispatch.deliver()
    assert subjects(chat) == ["high latency"]
    retry_after_pause()
    assert subjects(chat) == ["high latency", "credits exhausted"]


def test_the_pauses_grow_to_minutes(service: Callable[[], Webhook]):
    chat = service()
    chat.status = 500
    row = channel(chat)
    create_incident()
    pauses = []
    for _ in range(7):
        retry_after_pause()
        row.refresh_from_db()
        pauses.append(round((row.sending_until - timezone.now()).total_seconds(), -1))
    assert pauses == [10, 20, 40, 80, 160, 300, 300]


@pytest.mark.parametrize("ends", ["disabled", "deleted"])
def test_the_incident_of_a_removed_channel_ends(service: Callable[[], Webhook], ends: str):
    row = channel(service())
    create_incident("channel", key=str(row.pk))
    dispatch.deliver()
    assert Incident.objects.get().resolved_at is None
    if ends == "deleted":
        row.delete()
    else:
        NotificationChannel.objects.update(enabled=False)
    dispatch.deliver()
    assert Incident.objects.get().resolved_at is not None


# The drill


def test_the_drill(service: Callable[[], Webhook], webhook: Webhook, mail: MailServer, settings: Settings):
    """Three channels within 10 s, an escalation after its time, each once, although many workers run."""
    settings.ALERT_WEBHOOK_SECRET = "signed"
    chat, second = service(), service()
    channel(chat, "Chat")
    channel(second, "Second", escalate_after_minutes=15)
    incidents.open_incident(Kind.NO_VOICE)
    until(lambda: chat.received and webhook.received and mail.mails, within_s=10)
    run_concurrently(deliver_everything, WORKERS)
    assert "x-voicecare-signature" in webhook.headers[0]
    assert second.received == []
    long_ago = timezone.now() - timedelta(minutes=16)
    Incident.objects.update(opened_at=long_ago)
    ChannelAlert.objects.update(opening_of=long_ago)  # as if it had been reported then
    run_concurrently(deliver_everything, WORKERS)
    assert [len(chat.received), len(second.received), len(webhook.received), len(mail.mails)] == [1, 1, 1, 1]
    incidents.resolve_incident(Kind.NO_VOICE)
    run_concurrently(deliver_everything, WORKERS)
    wait_for_threads()
    assert [len(chat.received), len(second.received), len(webhook.received), len(mail.mails)] == [2, 2, 2, 2]


def deliver_everything() -> None:
    """What a worker does every ten seconds."""
    dispatcher.retry_pending()
    dispatch.deliver()


def test_an_acknowledged_incident_is_not_escalated(service: Callable[[], Webhook]):
    second = service()
    channel(second, escalate_after_minutes=15)
    incident = create_incident(opened_at=timezone.now() - timedelta(minutes=16))
    responses.acknowledge(incident.pk, "ann")
    dispatch.deliver()
    assert second.asked == 0


def test_quiet_hours_hold_a_budget_until_they_end(service: Callable[[], Webhook]):
    chat = service()
    now = timezone.now()
    ends = [time((now.hour + hours) % 24) for hours in (-1, 2)]
    row = channel(chat, quiet_from=ends[0], quiet_to=ends[1])
    create_incident("budget", key="00000000-0000-4000-8000-000000000000")
    create_incident("quota")
    dispatch.deliver()
    assert subjects(chat) == ["credits exhausted"]
    NotificationChannel.objects.filter(pk=row.pk).update(quiet_from=ends[1], quiet_to=time((now.hour + 3) % 24))
    dispatch.deliver()
    assert subjects(chat) == ["credits exhausted", "the budget of a patient or a clinic is used up"]
