"""`manage.py reconcile`: what beat has done every hour, or one day again."""

import uuid
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from tests.sandbox import SandboxProcess
from usage import ledger
from usage.models import Reconciliation

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def provider(settings: Settings, sandbox: SandboxProcess) -> None:
    settings.ELEVENLABS_BASE_URL = sandbox.url


def before_yesterday() -> datetime:
    return datetime.now(UTC) - timedelta(days=2)


def reconcile(*arguments: str) -> str:
    out = StringIO()
    call_command("reconcile", *arguments, stdout=out)
    return out.getvalue()


def book() -> None:
    attempt = ledger.Attempt(source=uuid.uuid4(), segment=0, attempt=1, kind="live", asked=5, at=before_yesterday())
    ledger.book([attempt])


def test_it_does_what_is_due_and_says_what_came_of_it():
    book()
    day = before_yesterday().date()
    assert f"{day}: Characters: 0, as the provider has it." in reconcile()
    assert reconcile() == ""


def test_a_day_is_done_again():
    book()
    day = str(before_yesterday().date())
    for _ in range(2):
        assert reconcile("--day", day).startswith(f"{day}: Characters: 0")
    assert Reconciliation.objects.count() == 1


def test_a_day_that_another_process_is_at_is_left_to_it():
    day = before_yesterday().date()
    Reconciliation.objects.create(day=day, busy_until=timezone.now() + timedelta(minutes=5))
    with pytest.raises(CommandError, match="Another process"):
        reconcile("--day", str(day))
