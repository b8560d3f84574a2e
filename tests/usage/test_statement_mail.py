"""The mail about the last month: what it says, that it is sent once, and that it is sent again after a failure."""

import smtplib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from tests.usage.alerts.postbox import MailServer
from usage import statement_mail
from usage.models import DailyUsage, Price, StatementMail
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db
MONTH, FIRST_OF_APRIL = date(2026, 3, 1), date(2026, 4, 1)


@pytest.fixture(autouse=True)
def recipients(settings: Settings) -> None:
    settings.STATEMENT_EMAILS = ["ann@example.org", "ben@example.org"]
    settings.PUBLIC_URL = "https://voicecare.example.org"


def test_the_mail_has_totals_and_a_link_but_no_names(mail: MailServer):
    alice = Patient.objects.create(name="Alice Archer", companion_name="Clara")
    DailyUsage.objects.create(day=MONTH, patient=alice.pk, kind="live", characters=5000, credits=2500, events=3)
    Price.objects.create(valid_from=MONTH, per_1000_credits=Decimal("0.1234"))
    statement_mail.send_due(FIRST_OF_APRIL)
    ((addresses, message),) = mail.mails
    text = message.get_content()
    assert addresses == ["ann@example.org", "ben@example.org"]
    assert message["Subject"] == "voicecare: Statement of March 2026"
    assert "Credits: 2,500" in text
    assert "Cost: 0.31 USD (exactly 0.3085)" in text
    assert "0 of 31 days compared" in text
    assert "https://voicecare.example.org/admin/statements/2026-03/" in text
    assert "Alice" not in text
    assert str(alice.pk) not in text


def test_without_prices_the_mail_has_no_cost(mail: MailServer):
    statement_mail.send_due(FIRST_OF_APRIL)
    assert "Cost" not in mail.mails[0][1].get_content()


def test_a_repeated_task_sends_nothing(mail: MailServer):
    for day in (1, 1, 2, 7):
        statement_mail.send_due(date(2026, 4, day))
    assert len(mail.mails) == 1
    statement_mail.send_due(date(2026, 5, 1))
    assert [message["Subject"][-10:] for _, message in mail.mails] == ["March 2026", "April 2026"]


def test_a_mail_that_was_refused_is_sent_again_after_the_lease(mail: MailServer):
    mail.refuses = True
    with pytest.raises(smtplib.SMTPException):
        statement_mail.send_due(FIRST_OF_APRIL)
    mail.refuses = False
    assert not statement_mail.send_due(FIRST_OF_APRIL)  # another process may be sending it
    assert mail.mails == []
    StatementMail.objects.update(sending_until=timezone.now() - timedelta(seconds=5))
    assert statement_mail.send_due(FIRST_OF_APRIL)
    assert len(mail.mails) == 1
    assert StatementMail.objects.get().sent_at is not None


def test_old_months_and_installations_without_recipients_send_nothing(mail: MailServer, settings: Settings):
    assert not statement_mail.send_due(date(2026, 4, 8))
    settings.STATEMENT_EMAILS = []
    assert not statement_mail.send_due(FIRST_OF_APRIL)
    assert not StatementMail.objects.exists()
    assert mail.mails == []


@pytest.mark.django_db(transaction=True)
def test_of_several_workers_one_sends_the_mail(mail: MailServer):
    workers = 6
    together = threading.Barrier(workers)

    def send(_: int) -> bool:
        try:
            together.wait(20)
            return statement_mail.send_due(FIRST_OF_APRIL)
        finally:
            connection.close()

    with ThreadPoolExecutor(workers) as pool:
        sent = list(pool.map(send, range(workers)))
    assert sorted(sent) == [False] * (workers - 1) + [True]
    assert len(mail.mails) == 1
