"""The webhook's signature, and the incident of a failing channel."""

import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from pytest_django import Settings

from tests.usage.alerts.postbox import MailServer, Webhook
from tests.usage.alerts.test_dispatcher import create_incident, retry_after_pause
from usage.alerts import channels, dispatcher
from usage.models import Incident
from voicecare.patients.models import Clinic

pytestmark = pytest.mark.django_db(transaction=True)


def channel_incidents() -> list[tuple[str, bool, bool]]:
    """Channel incidents in order: the channel, whether it is open, and whether its alert was sent."""
    rows = Incident.objects.filter(kind="alerts").order_by("opened_at")
    return [(row.key, row.resolved_at is None, row.opening_sent_at is not None) for row in rows]


def retry_times(times: int) -> None:
    for _ in range(times):
        retry_after_pause()


# Mail


def test_the_addresses_of_the_clinic_get_the_mails_about_it(mail: MailServer, settings: Settings):
    ward = Clinic.objects.create(name="Ward 3", alert_emails="ward@example.org")
    for kind, key in (("budget", str(ward.pk)), ("quota", "")):
        Incident.objects.create(kind=kind, key=key)
    dispatcher.retry_pending()
    sent = sorted(recipients for recipients, _ in mail.mails)
    assert sent == [settings.ADMIN_EMAILS, [*settings.ADMIN_EMAILS, "ward@example.org"]]


# Signature


def test_a_webhook_is_signed_with_the_time_and_the_body(webhook: Webhook, settings: Settings):
    settings.ALERT_WEBHOOK_SECRET = "s3cret"
    create_incident()
    dispatcher.retry_pending()
    headers, body = webhook.headers[0], webhook.bodies[0]
    timestamp = headers["x-voicecare-timestamp"]
    expected = hmac.new(b"s3cret", timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-voicecare-signature"] == f"sha256={expected}"
    assert abs(time.time() - int(timestamp)) < 60
    assert set(webhook.received[0]) == {"kind", "state", "text", "url"}


def documented_check() -> Any:
    """The check that docs/operation.md recommends to receivers."""
    page = (Path(project.BASE_DIR) / "docs" / "operation.md").read_text()
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    return names["is_ours"]


@pytest.mark.parametrize(
    ("secret", "seconds_ago", "change", "accepted"),
    [
        ("s3cret", 0, b"", True),
        ("s3cret", 299, b"", True),
        ("s3cret", 301, b"", False),
        ("s3cret", -301, b"", False),
        ("other", 0, b"", False),
        ("s3cret", 0, b" ", False),
    ],
)
def test_the_documented_check_accepts_only_our_recent_messages(
    webhook: Webhook, settings: Settings, secret: str, seconds_ago: int, change: bytes, accepted: bool
):
    settings.ALERT_WEBHOOK_SECRET = secret
    create_incident()
    dispatcher.retry_pending()
    headers = webhook.headers[0]
    now = int(headers["x-voicecare-timestamp"]) + seconds_ago
    given = (headers["x-voicecare-timestamp"], headers["x-voicecare-signature"], webhook.bodies[0] + change)
    assert documented_check()(b"s3cret", *given, now) is accepted


def test_the_signature_depends_on_secret_time_and_body():
    signed = channels.signature("s3cret", "1764373500", b"{}")
    assert signed == "c5a4d6ee4864f1e8c65816e08722629752deb5eac99cd3a4bee9fe8c1ccc4246"
    assert signed != channels.signature("s3cret", "1764373501", b"{}")
    assert signed != channels.signature("s3cret", "1764373500", b"{ }")
    assert signed != channels.signature("other", "1764373500", b"{}")


def test_without_a_secret_the_webhook_is_not_signed(webhook: Webhook):
    create_incident()
    dispatcher.retry_pending()
    assert not {name for name in webhook.headers[0] if name.startswith("x-voicecare")}
    assert webhook.headers[0]["content-type"] == "application/json"


# Failing channels


def test_three_consecutive_failures_are_reported_through_the_other_channel(webhook: Webhook, mail: MailServer):
    mail.refuses = True
    create_incident()
    retry_times(2)
    assert channel_incidents() == []
    retry_times(2)
    assert channel_incidents() == [("mail", True, True)]
    assert [body["kind"] for body in webhook.received] == ["quota", "alerts"]
    assert "mail: 3 consecutive failures, the last one SMTPSenderRefused." in webhook.received[1]["text"]


def test_a_channel_incident_is_resolved_when_a_message_is_sent(webhook: Webhook, mail: MailServer):
    webhook.status = 503
    create_incident()
    retry_times(4)
    assert channel_incidents() == [("webhook", True, True)]
    webhook.status = 204
    retry_times(2)
    assert channel_incidents() == [("webhook", False, True)]
    assert [body["kind"] for body in webhook.received] == ["quota"]
    subjects = [message["Subject"] for _, message in mail.mails]
    assert subjects[1:] == ["voicecare: alerts cannot be sent", "voicecare: resolved: alerts cannot be sent"]


def test_the_only_channel_does_not_report_its_own_failure(mail: MailServer):
    mail.refuses = True
    create_incident()
    retry_times(6)
    assert channel_incidents() == [("mail", True, False)]
    assert Incident.objects.get(kind="alerts").sending_failures == 0
    mail.refuses = False
    retry_times(2)
    assert channel_incidents() == [("mail", False, False)]
    assert len(mail.mails) == 1


def test_if_both_channels_fail_there_is_one_incident_each(webhook: Webhook, mail: MailServer):
    webhook.status, mail.refuses = 500, True
    create_incident()
    retry_times(12)
    assert sorted(channel_incidents()) == [("mail", True, False), ("webhook", True, False)]
    webhook.status, mail.refuses = 204, False
    retry_times(2)
    assert [is_open for _, is_open, _ in channel_incidents()] == [False, False]


def test_failures_of_different_messages_are_not_consecutive(webhook: Webhook):
    webhook.status = 500
    for kind in ("quota", "access", "request"):
        create_incident(kind=kind)
    dispatcher.retry_pending()
    assert (webhook.asked, channel_incidents()) == (3, [])


def test_removing_a_channel_from_the_settings_resolves_its_incident(
    webhook: Webhook, mail: MailServer, settings: Settings
):
    webhook.status = 500
    create_incident()
    retry_times(3)
    settings.ALERT_WEBHOOK_URL = ""
    dispatcher.retry_pending()
    assert [(key, is_open) for key, is_open, _ in channel_incidents()] == [("webhook", False)]
