"""The mail about the last week: what it says, that it names nobody, and that it is sent once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from tests.usage.alerts.postbox import MailServer
from usage import weekly_digest
from usage.models import DailyUsage, DigestMail, Incident
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db
MONDAY = date(2026, 5, 11)  # the week before begins on May 4
IN_THE_WEEK = datetime(2026, 5, 6, 12, tzinfo=UTC)


def lines(mail: MailServer) -> list[str]:
    return mail.mails[-1][1].get_content().splitlines()  # type: ignore[no-any-return]


def incident(kind: str, opened_at: datetime, **columns: object) -> Incident:
    return Incident.objects.create(kind=kind, opened_at=opened_at, **columns)


def test_the_mail_has_the_week_and_nothing_else(mail: MailServer, settings: Settings):
    settings.PUBLIC_URL = "https://voicecare.example.org"
    alice = Patient.objects.create(name="Alice Archer", companion_name="Clara")
    for day, characters in ((date(2026, 5, 3), 7), (date(2026, 5, 4), 1000), (date(2026, 5, 10), 500), (MONDAY, 9)):
        DailyUsage.objects.create(day=day, patient=alice.pk, kind="live", characters=characters, events=3, failed=1)
    DailyUsage.objects.create(day=date(2026, 5, 5), patient=alice.pk, kind="offline", saved_characters=80, events=4)
    DailyUsage.objects.create(day=date(2026, 5, 5), patient=alice.pk, kind="backup", characters=20, events=2)
    incident("quota", IN_THE_WEEK, resolved_at=IN_THE_WEEK)
    incident("budget", IN_THE_WEEK, key=str(alice.pk), detail="the detail")
    incident("voice", IN_THE_WEEK, resolved_at=IN_THE_WEEK + timedelta(days=7))
    incident("request", IN_THE_WEEK - timedelta(days=7), reopened_at=IN_THE_WEEK)
    incident("slow", IN_THE_WEEK - timedelta(days=7), resolved_at=IN_THE_WEEK - timedelta(days=3))
    assert weekly_digest.send_due(MONDAY)
    ((addresses, message),) = mail.mails
    assert addresses == ["ann@example.org", "ben@example.org"]
    assert message["Subject"] == "voicecare: Week from 2026-05-04 to 2026-05-10"
    found = lines(mail)
    for line in (
        "Incidents: 4 opened, 1 resolved, 2 open now",
        "- credits exhausted: 1 opened, 1 resolved",
        "- a voice is unavailable: 1 opened, 0 resolved",
        "Characters: 1,520 billed, 80 saved",
        "Incidents about voices: 1 opened",
        "Requests in a backup voice: 2",
        "Segments in the offline voice: 4",
        "Incidents: https://voicecare.example.org/admin/usage/incident/",
    ):
        assert line in found
    text = "\n".join(found)
    assert not [word for word in ("Alice", str(alice.pk), "the detail", "high latency") if word in text]


def test_a_week_begins_and_ends_in_the_configured_zone(mail: MailServer, settings: Settings):
    settings.USAGE_TIME_ZONE = "America/New_York"
    incident("quota", datetime(2026, 5, 4, 3, tzinfo=UTC), resolved_at=datetime(2026, 5, 4, 5, tzinfo=UTC))
    incident("slow", datetime(2026, 5, 11, 3, tzinfo=UTC))
    weekly_digest.send_due(MONDAY)
    assert "Incidents: 1 opened, 1 resolved, 1 open now" in lines(mail)


def test_it_is_sent_once_a_week_from_monday_to_wednesday(mail: MailServer):
    for days in range(7):
        weekly_digest.send_due(MONDAY + timedelta(days=days))
    assert len(mail.mails) == 1
    assert not weekly_digest.send_due(MONDAY + timedelta(days=10))  # a new server on a Thursday
    assert weekly_digest.send_due(MONDAY + timedelta(days=9))
    assert mail.mails[1][1]["Subject"] == "voicecare: Week from 2026-05-11 to 2026-05-17"


def test_without_recipients_nothing_is_sent(mail: MailServer, settings: Settings):
    settings.ADMIN_EMAILS = []
    assert not weekly_digest.send_due(MONDAY)
    assert not DigestMail.objects.exists()


def test_a_mail_that_was_refused_is_sent_again_after_the_lease(mail: MailServer):
    mail.refuses = True
    with pytest.raises(OSError, match="not now"):
        weekly_digest.send_due(MONDAY)
    mail.refuses = False
    assert not weekly_digest.send_due(MONDAY)
    DigestMail.objects.update(sending_until=timezone.now() - timedelta(seconds=5))
    assert weekly_digest.send_due(MONDAY)
    assert DigestMail.objects.get().sent_at is not None


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_one_sends_the_mail(mail: MailServer):
    workers = 20
    together = threading.Barrier(workers)

    def send(_: int) -> bool:
        try:
            together.wait(20)
            return weekly_digest.send_due(MONDAY)
        finally:
            connection.close()

    with ThreadPoolExecutor(workers) as pool:
        assert sum(pool.map(send, range(workers))) == 1
    assert len(mail.mails) == 1
