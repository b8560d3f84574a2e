"""The webhook's signature, and ways that keep failing: told by the other one, never by themselves, over by itself."""

import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from pytest_django import Settings

from tests.usage.alerts.postbox import MailServer, Webhook
from tests.usage.alerts.test_dispatcher import made, retry
from usage.alerts import channels, dispatcher
from usage.models import Incident

pytestmark = pytest.mark.django_db(transaction=True)


def failing() -> list[tuple[str, bool, bool]]:
    """The incidents of ways: which way, whether it is still open, whether anybody was told."""
    rows = Incident.objects.filter(kind="alerts").order_by("opened_at")
    return [(row.key, row.resolved_at is None, row.opening_sent_at is not None) for row in rows]


def repeat(times: int) -> None:
    for _ in range(times):
        retry()


# Signed


def test_a_webhook_is_signed_with_the_time_and_the_body(webhook: Webhook, settings: Settings):
    settings.ALERT_WEBHOOK_SECRET = "s3cret"
    made()
    dispatcher.retry_pending()
    headers, body = webhook.headers[0], webhook.bodies[0]
    timestamp = headers["x-voicecare-timestamp"]
    expected = hmac.new(b"s3cret", timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-voicecare-signature"] == f"sha256={expected}"
    assert abs(time.time() - int(timestamp)) < 60
    assert set(webhook.received[0]) == {"kind", "state", "text", "url"}


def documented() -> Any:
    """The check that docs/operation.md gives to receivers."""
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
def test_the_documented_check_accepts_what_is_ours_and_new(
    webhook: Webhook, settings: Settings, secret: str, seconds_ago: int, change: bytes, accepted: bool
):
    settings.ALERT_WEBHOOK_SECRET = secret
    made()
    dispatcher.retry_pending()
    headers = webhook.headers[0]
    now = int(headers["x-voicecare-timestamp"]) + seconds_ago
    given = (headers["x-voicecare-timestamp"], headers["x-voicecare-signature"], webhook.bodies[0] + change)
    assert documented()(b"s3cret", *given, now) is accepted


def test_another_body_or_time_has_another_signature():
    signed = channels.signature("s3cret", "1764373500", b"{}")
    assert signed == "c5a4d6ee4864f1e8c65816e08722629752deb5eac99cd3a4bee9fe8c1ccc4246"
    assert signed != channels.signature("s3cret", "1764373501", b"{}")
    assert signed != channels.signature("s3cret", "1764373500", b"{ }")
    assert signed != channels.signature("other", "1764373500", b"{}")


def test_without_a_secret_nothing_is_signed(webhook: Webhook):
    made()
    dispatcher.retry_pending()
    assert not {name for name in webhook.headers[0] if name.startswith("x-voicecare")}
    assert webhook.headers[0]["content-type"] == "application/json"


# Failing


def test_a_way_that_fails_three_times_in_a_row_is_told_by_the_other(webhook: Webhook, mail: MailServer):
    mail.refuses = True
    made()
    repeat(2)
    assert failing() == []
    repeat(2)
    assert failing() == [("mail", True, True)]
    assert [body["kind"] for body in webhook.received] == ["quota", "alerts"]
    assert "mail: 3 consecutive failures, the last one SMTPSenderRefused." in webhook.received[1]["text"]


def test_it_is_over_by_itself_when_a_message_goes_through(webhook: Webhook, mail: MailServer):
    webhook.status = 503
    made()
    repeat(4)
    assert failing() == [("webhook", True, True)]
    webhook.status = 204
    repeat(2)
    assert failing() == [("webhook", False, True)]
    assert [body["kind"] for body in webhook.received] == ["quota"]
    subjects = [message["Subject"] for _, message in mail.mails]
    assert subjects[1:] == ["voicecare: alerts cannot be sent", "voicecare: resolved: alerts cannot be sent"]


def test_the_only_way_does_not_tell_of_itself(mail: MailServer):
    mail.refuses = True
    made()
    repeat(6)
    assert failing() == [("mail", True, False)]
    assert Incident.objects.get(kind="alerts").sending_failures == 0
    mail.refuses = False
    repeat(2)
    assert failing() == [("mail", False, False)]
    assert len(mail.mails) == 1


def test_where_all_ways_fail_there_are_two_incidents_and_no_more(webhook: Webhook, mail: MailServer):
    webhook.status, mail.refuses = 500, True
    made()
    repeat(12)
    assert sorted(failing()) == [("mail", True, False), ("webhook", True, False)]
    webhook.status, mail.refuses = 204, False
    repeat(2)
    assert [is_open for _, is_open, _ in failing()] == [False, False]


def test_failures_of_different_messages_are_not_in_a_row(webhook: Webhook):
    webhook.status = 500
    for kind in ("quota", "access", "request"):
        made(kind=kind)
    dispatcher.retry_pending()
    assert (webhook.asked, failing()) == (3, [])


def test_a_way_that_is_taken_out_of_the_settings_fails_no_more(webhook: Webhook, mail: MailServer, settings: Settings):
    webhook.status = 500
    made()
    repeat(3)
    settings.ALERT_WEBHOOK_URL = ""
    dispatcher.retry_pending()
    assert [(key, is_open) for key, is_open, _ in failing()] == [("webhook", False)]
