"""Alerts over real sockets: once for each state of an incident, in order, by every way, whatever else fails."""

import threading
import time
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.usage.alerts.postbox import MailServer, Webhook
from tests.usage.provider_state.test_circuit import ago, at_once
from tests.waiting import until
from usage.alerts import channels, dispatcher, incidents
from usage.alerts.incidents import Kind
from usage.models import Incident

pytestmark = pytest.mark.django_db(transaction=True)  # they are sent from a thread of its own


def incident() -> Incident:
    return Incident.objects.exclude(kind="alerts").get()


def retry() -> None:
    """As beat does it, once the pause is over."""
    Incident.objects.exclude(sending_until=None).update(sending_until=ago(1))
    dispatcher.retry_pending()


def made(**columns: object) -> Incident:
    """An incident that nobody has been told of."""
    return Incident.objects.create(**{"kind": "quota", **columns})


def states(webhook: Webhook) -> list[str]:
    return [body["state"] for body in webhook.received]


def tellers() -> int:
    return sum(thread.name == "alerts" for thread in threading.enumerate())


# At once


def test_an_incident_is_told_by_mail_and_webhook_within_moments(webhook: Webhook, mail: MailServer):
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


def test_its_end_is_told_too(webhook: Webhook, mail: MailServer):
    incidents.open_incident(Kind.QUOTA)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    incidents.resolve_incident(Kind.QUOTA)
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    assert states(webhook) == ["opened", "resolved"]
    assert [message["Subject"].startswith("voicecare: resolved") for _, message in mail.mails] == [False, True]


def test_many_that_are_over_at_once_are_told_by_one_thread(webhook: Webhook):
    for number in range(12):
        made(kind="budget", key=str(number), opening_sent_at=timezone.now())
    webhook.hang_s = 0.05
    until(lambda: tellers() == 0)  # of other tests
    assert incidents.resolve(Incident.objects.filter(kind="budget")) == 12
    assert tellers() == 1
    until(lambda: not Incident.objects.filter(resolution_sent_at=None).exists())
    assert states(webhook) == ["resolved"] * 12


def test_an_incident_that_is_open_is_not_told_again(webhook: Webhook):
    for _ in range(3):
        incidents.open_incident(Kind.QUOTA)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())
    time.sleep(0.2)
    assert webhook.asked == 1


def test_a_transaction_that_is_rolled_back_tells_nobody(webhook: Webhook):
    with transaction.atomic():
        incidents.open_incident(Kind.QUOTA)
        transaction.set_rollback(True)
    time.sleep(0.2)
    assert webhook.asked == 0


def test_who_opens_it_does_not_wait(webhook: Webhook):
    webhook.hang_s = 1
    began = time.monotonic()
    incidents.open_incident(Kind.QUOTA)
    assert time.monotonic() - began < 0.5
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("state", ["opened", "resolved"])
def test_every_kind_has_words_for_each_state(webhook: Webhook, mail: MailServer, kind: Kind, state: str):
    made(kind=kind, opening_sent_at=timezone.now() if state == "resolved" else None, resolved_at=timezone.now())
    dispatcher.retry_pending()
    assert states(webhook)[0] == state
    assert len(webhook.received[0]["text"]) > 60
    assert kind.label in mail.mails[0][1]["Subject"]


# In order, and once


def test_what_was_over_before_it_could_be_told_is_told_in_order(webhook: Webhook):
    made(resolved_at=timezone.now())
    dispatcher.retry_pending()
    assert states(webhook) == ["opened", "resolved"]


def test_what_is_over_while_its_beginning_is_being_told_is_told_in_order(webhook: Webhook):
    webhook.hang_s = 0.3
    incidents.open_incident(Kind.QUOTA)
    until(lambda: webhook.asked)
    incidents.resolve_incident(Kind.QUOTA)
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists())
    assert states(webhook) == ["opened", "resolved"]


def test_the_end_waits_for_the_beginning_to_be_told(webhook: Webhook):
    webhook.status = 500
    made(resolved_at=timezone.now())
    dispatcher.retry_pending()
    assert webhook.asked == 1
    webhook.status = 200
    retry()
    assert states(webhook) == ["opened", "resolved"]


def test_of_many_processes_one_tells_it(webhook: Webhook):
    webhook.hang_s = 0.1
    pk = made(resolved_at=timezone.now()).pk
    at_once(lambda: dispatcher.deliver(pk))
    assert states(webhook) == ["opened", "resolved"]


def test_what_a_killed_process_was_about_to_tell_is_told_when_its_lease_is_over(webhook: Webhook):
    made(sending_until=timezone.now() + dispatcher.LEASE)
    dispatcher.retry_pending()
    assert webhook.asked == 0
    retry()
    assert states(webhook) == ["opened"]


def test_who_lost_its_lease_does_not_end_that_of_its_successor(webhook: Webhook):
    slow = dispatcher._claim(made().pk)
    assert slow is not None
    successors = timezone.now() + dispatcher.LEASE
    Incident.objects.update(sending_until=successors)
    dispatcher._save_outcome(slow, "opened", {"webhook"}, complete=True)
    assert (incident().sending_until, incident().opening_sent_at) == (successors, None)


# Failing


@pytest.mark.parametrize("status", [302, 307, 400, 404, 500, 503])
def test_a_webhook_that_refuses_is_tried_again_until_it_takes_it(webhook: Webhook, status: int):
    webhook.status = status
    made()
    dispatcher.retry_pending()
    dispatcher.retry_pending()
    assert (webhook.asked, incident().sending_failures, incident().opening_sent_at) == (1, 1, None)
    webhook.status = 200
    retry()
    assert (states(webhook), incident().sending_failures) == (["opened"], 0)


def test_the_pauses_grow_to_minutes(webhook: Webhook):
    webhook.status = 500
    made()
    pauses = []
    for _ in range(7):
        retry()
        pauses.append(round((incident().sending_until - timezone.now()).total_seconds()))
    assert pauses == [10, 20, 40, 80, 160, 300, 300]


def test_a_mail_server_that_refuses_does_not_double_the_webhook(webhook: Webhook, mail: MailServer):
    mail.refuses = True
    made()
    dispatcher.retry_pending()
    retry()
    assert (len(webhook.received), len(mail.mails)) == (1, 0)
    mail.refuses = False
    retry()
    assert (len(webhook.received), len(mail.mails)) == (1, 1)
    assert incident().opening_sent_at is not None


def test_a_webhook_that_refuses_does_not_double_the_mail(webhook: Webhook, mail: MailServer):
    webhook.status = 500
    made(resolved_at=timezone.now())
    dispatcher.retry_pending()
    webhook.status = 200
    retry()
    assert states(webhook) == ["opened", "resolved"]
    assert len(mail.mails) == 2


def test_a_webhook_that_hangs_does_not_hold_up_the_mail(webhook: Webhook, mail: MailServer):
    webhook.hang_s = 2
    incidents.open_incident(Kind.QUOTA)
    until(lambda: mail.mails, within_s=1.5)
    until(lambda: Incident.objects.exclude(opening_sent_at=None).exists())


def test_a_webhook_that_never_answers_is_given_up(webhook: Webhook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(channels, "READ_TIMEOUT_S", 0.2)
    webhook.hang_s = 1
    made()
    dispatcher.retry_pending()
    assert incident().sending_failures == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://nowhere.invalid/", "no address", "ftp://127.0.0.1/"])
def test_an_address_where_nobody_is_harms_nothing(settings: Settings, mail: MailServer, url: str):
    settings.ALERT_WEBHOOK_URL = url
    made()
    dispatcher.retry_pending()
    assert (len(mail.mails), incident().sending_failures, incident().notified_channels) == (1, 1, "mail")


def test_neither_the_environments_proxy_nor_its_passwords_are_used(webhook: Webhook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    made()
    dispatcher.retry_pending()
    assert states(webhook) == ["opened"]
    assert "authorization" not in webhook.headers[0]


def test_a_failure_says_so_and_keeps_the_webhooks_secret(
    webhook: Webhook, capsys: pytest.CaptureFixture[str], settings: Settings
):
    webhook.status = 500
    made()
    dispatcher.retry_pending()
    said = capsys.readouterr().out
    assert "alert.send_failed" in said
    assert "secret" not in said


# Nobody to tell, nothing new


def test_with_nobody_to_tell_nothing_is_tried(settings: Settings):
    settings.ADMIN_EMAILS, settings.ALERT_WEBHOOK_URL = [], ""
    incidents.open_incident(Kind.QUOTA)
    dispatcher.retry_pending()
    now = incident()
    assert (now.opening_sent_at, now.sending_until, now.sending_failures) == (None, None, 0)


def test_old_incidents_are_no_news_for_a_new_webhook(webhook: Webhook):
    old = timezone.now() - timedelta(days=2)
    made(opened_at=old)
    made(opened_at=old, resolved_at=old)
    dispatcher.retry_pending()
    assert webhook.asked == 0


def test_the_end_of_an_old_incident_is_news(webhook: Webhook):
    made(opened_at=timezone.now() - timedelta(days=2), resolved_at=timezone.now())
    dispatcher.retry_pending()
    assert states(webhook) == ["resolved"]


def test_the_address_of_the_admin_may_end_in_a_slash(webhook: Webhook, settings: Settings):
    settings.PUBLIC_URL = "https://voice.example.org/"
    made()
    dispatcher.retry_pending()
    assert webhook.received[0]["url"].startswith("https://voice.example.org/admin/")


def test_the_thread_leaves_no_connection_behind(webhook: Webhook):
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
