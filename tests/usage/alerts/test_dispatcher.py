"""Alerts over real sockets: each state of an incident is sent once, in order, through every channel."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.usage.alerts.postbox import MailServer, Webhook
from tests.usage.provider_state.test_circuit import run_concurrently, seconds_ago
from tests.waiting import until
from usage.alerts import dispatcher, incidents
from usage.alerts.incidents import Kind
from usage.models import Incident
from voicecare.core import http_post
from voicecare.core.batches import RowsFailed

pytestmark = pytest.mark.django_db(transaction=True)  # alerts are sent from a separate thread


def incident() -> Incident:
    return Incident.objects.exclude(kind="alerts").get()


def retry_after_pause() -> None:
    """Do what beat does after the retry delay."""
    Incident.objects.exclude(retry_at=None).update(retry_at=seconds_ago(1))
    dispatcher.retry_pending()


def create_incident(**columns: object) -> Incident:
    """Create an incident whose alerts were not sent."""
    return Incident.objects.create(**{"kind": "quota", **columns})


def states(webhook: Webhook) -> list[str]:
    return [body["state"] for body in webhook.received]


def alert_threads() -> int:
    return sum(thread.name == "alerts" for thread in threading.enumerate())


# Sending immediately


def test_an_incident_is_sent_by_mail_and_webhook_immediately(webhook: Webhook, mail: MailServer):
    incidents.open_incident(Kind.QUOTA, detail="quota_exceeded, HTTP 401, request r1")
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    body = webhook.received[0]
    assert set(body) == {"kind", "state", "text", "url"}
    assert (body["kind"], body["state"]) == ("quota", "opened")
    assert body["url"] == "http://localhost:8000" + reverse("admin:usage_incident_change", args=[incident().pk])
    [(recipients, message)] = mail.mails
    assert recipients == ["ann@example.org", "ben@example.org"]
    assert message["Subject"] == "voicecare: credits exhausted"
    for part in ("credits", "What patients hear:", "What to do:", "request r1", body["url"]):
        assert part in message.get_content()


def test_the_resolution_is_sent_too(webhook: Webhook, mail: MailServer):
    incidents.open_incident(Kind.QUOTA)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    incidents.resolve_incident(Kind.QUOTA)
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    assert states(webhook) == ["opened", "resolved"]
    assert [message["Subject"].startswith("voicecare: resolved") for _, message in mail.mails] == [False, True]


def test_simultaneous_resolutions_are_sent_by_one_thread(webhook: Webhook):
    for number in range(12):
        create_incident(kind="budget", key=str(number), opening_sent_at=timezone.now())
    webhook.hang_s = 0.05
    until(lambda: alert_threads() == 0)  # threads of other tests
    assert incidents.resolve(Incident.objects.filter(kind="budget")) == 12
    assert alert_threads() == 1
    until(lambda: not Incident.objects.filter(resolution_sent_at=None).exists())
    assert states(webhook) == ["resolved"] * 12


def test_an_open_incident_is_sent_once(webhook: Webhook):
    for _ in range(3):
        incidents.open_incident(Kind.QUOTA)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    time.sleep(0.2)
    assert webhook.asked == 1


def test_a_rolled_back_transaction_sends_no_alert(webhook: Webhook):
    with transaction.atomic():
        incidents.open_incident(Kind.QUOTA)
        transaction.set_rollback(True)
    time.sleep(0.2)
    assert webhook.asked == 0


def test_opening_an_incident_does_not_wait_for_the_alert(webhook: Webhook):
    webhook.hang_s = 4
    began = time.monotonic()
    incidents.open_incident(Kind.QUOTA)
    assert time.monotonic() - began < 3
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("state", ["opened", "resolved"])
def test_every_kind_has_a_message_for_each_state(webhook: Webhook, mail: MailServer, kind: Kind, state: str):
    create_incident(
        kind=kind, opening_sent_at=timezone.now() if state == "resolved" else None, resolved_at=timezone.now()
    )
    dispatcher.retry_pending()
    assert states(webhook)[0] == state
    assert len(webhook.received[0]["text"]) > 60
    assert kind.label in mail.mails[0][1]["Subject"]


# Order and duplicates


def test_an_incident_resolved_before_its_alert_is_sent_in_order(webhook: Webhook):
    create_incident(resolved_at=timezone.now())
    dispatcher.retry_pending()
    assert states(webhook) == ["opened", "resolved"]


def test_an_incident_resolved_while_its_alert_is_being_sent_is_sent_in_order(webhook: Webhook):
    webhook.hang_s = 0.3
    incidents.open_incident(Kind.QUOTA)
    until(lambda: webhook.asked)
    incidents.resolve_incident(Kind.QUOTA)
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    assert states(webhook) == ["opened", "resolved"]


def test_the_resolved_alert_waits_for_the_opened_alert(webhook: Webhook):
    webhook.status = 500
    create_incident(resolved_at=timezone.now())
    dispatcher.retry_pending()
    assert webhook.asked == 1
    webhook.status = 200
    retry_after_pause()
    assert states(webhook) == ["opened", "resolved"]


def test_one_of_several_processes_sends_the_alert(webhook: Webhook):
    webhook.hang_s = 0.1
    pk = create_incident(resolved_at=timezone.now()).pk
    run_concurrently(lambda: dispatcher.deliver(pk))
    assert states(webhook) == ["opened", "resolved"]


def test_an_alert_of_a_killed_process_is_sent_after_its_lease(webhook: Webhook):
    create_incident(sending_until=timezone.now() + dispatcher.LEASE)
    dispatcher.retry_pending()
    assert webhook.asked == 0
    Incident.objects.update(sending_until=seconds_ago(1))
    dispatcher.retry_pending()
    assert states(webhook) == ["opened"]


def test_a_process_that_lost_its_lease_does_not_end_the_new_one(webhook: Webhook):
    slow = dispatcher._claim(create_incident().pk)
    assert slow is not None
    successors = timezone.now() + dispatcher.LEASE
    Incident.objects.update(sending_until=successors)
    dispatcher._save_success(slow, "opened", set())
    assert (incident().sending_until, incident().opening_sent_at) == (successors, None)


# Failing channels


@pytest.mark.parametrize("status", [302, 307, 400, 404, 500, 503])
def test_a_webhook_is_retried_until_it_accepts_the_message(webhook: Webhook, status: int):
    webhook.status = status
    create_incident()
    dispatcher.retry_pending()
    dispatcher.retry_pending()
    assert (webhook.asked, incident().sending_failures, incident().opening_sent_at) == (1, 1, None)
    webhook.status = 200
    retry_after_pause()
    assert (states(webhook), incident().sending_failures) == (["opened"], 0)


def test_the_retry_delays_grow_to_minutes(webhook: Webhook):
    webhook.status = 500
    create_incident()
    pauses = []
    for _ in range(7):
        retry_after_pause()
        pauses.append(round((incident().retry_at - timezone.now()).total_seconds()))
    assert pauses == [10, 20, 40, 80, 160, 300, 300]


def test_a_failing_mail_server_does_not_repeat_the_webhook(webhook: Webhook, mail: MailServer):
    mail.refuses = True
    create_incident()
    dispatcher.retry_pending()
    retry_after_pause()
    assert (len(webhook.received), len(mail.mails)) == (1, 0)
    mail.refuses = False
    retry_after_pause()
    assert (len(webhook.received), len(mail.mails)) == (1, 1)
    assert incident().opening_sent_at is not None


def test_a_failing_webhook_does_not_repeat_the_mail(webhook: Webhook, mail: MailServer):
    webhook.status = 500
    create_incident(resolved_at=timezone.now())
    dispatcher.retry_pending()
    webhook.status = 200
    retry_after_pause()
    assert states(webhook) == ["opened", "resolved"]
    assert len(mail.mails) == 2


@pytest.mark.parametrize("failing", ["mail", "webhook"])
def test_a_channel_sends_the_resolution_although_the_other_one_has_not_sent_the_opening(
    webhook: Webhook, mail: MailServer, failing: str
):
    def sent() -> dict[str, list[str]]:
        resolved = [message["Subject"].startswith("voicecare: resolved") for _, message in mail.mails]
        return {"mail": ["resolved" if is_end else "opened" for is_end in resolved], "webhook": states(webhook)}

    working = "webhook" if failing == "mail" else "mail"
    mail.refuses, webhook.status = failing == "mail", 200 if failing == "mail" else 500
    create_incident()
    dispatcher.retry_pending()
    assert sent() == {working: ["opened"], failing: []}
    incidents.resolve_incident(Kind.QUOTA)
    until(lambda: sent()[working] == ["opened", "resolved"])
    until(lambda: alert_threads() == 0)
    retry_after_pause()  # fails again, and the working channel repeats nothing
    assert sent() == {working: ["opened", "resolved"], failing: []}
    assert (incident().opening_sent_at, incident().resolution_sent_at) == (None, None)
    mail.refuses, webhook.status = False, 200
    retry_after_pause()
    assert sent() == {"mail": ["opened", "resolved"], "webhook": ["opened", "resolved"]}
    assert None not in (incident().opening_sent_at, incident().resolution_sent_at)
    events = incident().events.filter(kind="alert").order_by("channel", "pk").values_list("channel", "text")
    assert list(events) == [(name, text) for name in ("mail", "webhook") for text in ("opened", "resolved")]


def test_an_incident_that_opens_again_is_sent_again_by_the_channel_that_was_ahead(webhook: Webhook, mail: MailServer):
    mail.refuses = True
    create_incident(resolved_at=timezone.now())
    dispatcher.retry_pending()
    assert states(webhook) == ["opened", "resolved"]
    incidents.open_incident(Kind.QUOTA)
    until(lambda: len(webhook.received) == 3)
    assert states(webhook)[-1] == "opened"


def test_a_slow_webhook_does_not_delay_the_mail(webhook: Webhook, mail: MailServer):
    webhook.hang_s = 4.5
    incidents.open_incident(Kind.QUOTA)
    until(lambda: mail.mails, within_s=4)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())


def test_a_webhook_that_does_not_answer_times_out(webhook: Webhook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_post, "TIMEOUT_S", 0.2)
    webhook.hang_s = 4
    create_incident()
    dispatcher.retry_pending()
    assert incident().sending_failures == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://nowhere.invalid/", "no address", "ftp://127.0.0.1/"])
def test_an_unreachable_webhook_does_not_stop_the_mail(settings: Settings, mail: MailServer, url: str):
    settings.ALERT_WEBHOOK_URL = url
    create_incident()
    dispatcher.retry_pending()
    assert (len(mail.mails), incident().sending_failures, incident().notified_channels) == (1, 1, "mail")


def test_proxies_and_passwords_of_the_environment_are_not_used(webhook: Webhook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    create_incident()
    dispatcher.retry_pending()
    assert states(webhook) == ["opened"]
    assert "authorization" not in webhook.headers[0]


def test_a_failure_is_logged_without_the_webhooks_secret(
    webhook: Webhook, caplog: pytest.LogCaptureFixture, settings: Settings
):
    webhook.status = 500
    create_incident()
    dispatcher.retry_pending()
    said = caplog.text
    assert "alert.send_failed" in said
    assert "secret" not in said


def test_the_incident_of_a_removed_channel_ends_even_if_an_alert_cannot_be_sent(webhook: Webhook):
    create_incident(kind="alerts", key="mail", opening_sent_at=timezone.now())  # mail is not configured
    create_incident()

    def execute(run: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        if sql.startswith("UPDATE") and "sending_until" in sql:
            raise IntegrityError("refused")
        return run(sql, *arguments)

    with connection.execute_wrapper(execute), pytest.raises(RowsFailed):
        dispatcher.retry_pending()
    assert Incident.objects.get(kind="alerts").resolved_at is not None


# No channel, old incidents


def test_without_a_channel_no_alert_is_tried(settings: Settings):
    settings.ADMIN_EMAILS, settings.ALERT_WEBHOOK_URL = [], ""
    incidents.open_incident(Kind.QUOTA)
    dispatcher.retry_pending()
    now = incident()
    assert (now.opening_sent_at, now.sending_until, now.sending_failures) == (None, None, 0)


def test_old_incidents_are_not_sent_to_a_new_webhook(webhook: Webhook):
    old = timezone.now() - timedelta(days=2)
    create_incident(opened_at=old)
    create_incident(opened_at=old, resolved_at=old)
    dispatcher.retry_pending()
    assert webhook.asked == 0


def test_the_resolution_of_an_old_incident_is_sent(webhook: Webhook):
    create_incident(opened_at=timezone.now() - timedelta(days=2), resolved_at=timezone.now())
    dispatcher.retry_pending()
    assert states(webhook) == ["resolved"]


def test_the_public_url_may_end_with_a_slash(webhook: Webhook, settings: Settings):
    settings.PUBLIC_URL = "https://voice.example.org/"
    create_incident()
    dispatcher.retry_pending()
    assert webhook.received[0]["url"].startswith("https://voice.example.org/admin/")


def test_the_thread_closes_its_database_connection(webhook: Webhook):
    incidents.open_incident(Kind.QUOTA)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            until(
                lambda: (
                    cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
                    and cursor.fetchone()[0] == 1
                )
            )
