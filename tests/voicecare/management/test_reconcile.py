"""`manage.py reconcile`: the hourly reconciliation of Celery beat by hand, or one chosen day again."""

import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import database_url
from tests.sandbox import SandboxProcess
from tests.server import ROOT, environment
from tests.waiting import until
from usage.ledger import events
from usage.models import DailyUsage, Reconciliation, UsageEvent
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db

MODEL = "eleven_flash_v2_5"


@pytest.fixture(autouse=True)
def provider(settings: Settings, sandbox: SandboxProcess) -> None:
    settings.ELEVENLABS_BASE_URL = sandbox.url


def two_days_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=2)


def reconcile(*arguments: str) -> str:
    out = StringIO()
    call_command("reconcile", *arguments, stdout=out)
    return out.getvalue()


def record_attempt() -> None:
    attempt = events.Attempt(
        source_id=uuid.uuid4(), segment=0, attempt=1, kind="live", requested_characters=5, started_at=two_days_ago()
    )
    events.record_attempts([attempt])


def test_due_days_are_reconciled_and_the_result_is_printed():
    record_attempt()
    day = two_days_ago().date()
    assert f"{day}: Characters: 0 in the ledger and at the provider." in reconcile()
    assert reconcile() == ""


def test_a_day_can_be_reconciled_again():
    record_attempt()
    day = str(two_days_ago().date())
    for _ in range(2):
        assert reconcile("--day", day).startswith(f"{day}: Characters: 0")
    assert Reconciliation.objects.count() == 1


def test_a_day_that_another_process_has_leased_is_refused():
    day = two_days_ago().date()
    Reconciliation.objects.create(day=day, lease_until=timezone.now() + timedelta(minutes=5))
    with pytest.raises(CommandError, match="Another process"):
        reconcile("--day", str(day))


def test_a_future_day_is_refused():
    with pytest.raises(CommandError, match="in the future"):
        reconcile("--day", str((timezone.now() + timedelta(days=2)).date()))
    assert not Reconciliation.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_run_after_a_killed_run_counts_nothing_twice(sandbox: SandboxProcess, tmp_path: Path):
    """The first run is killed after it settled the unconfirmed attempt and before it saved the day."""
    voice, at = Voice.objects.default(), two_days_ago()
    attempt = events.Attempt(
        source_id=uuid.uuid4(),
        segment=0,
        attempt=1,
        kind="live",
        requested_characters=5,
        started_at=at,
        voice_id=voice.pk,
        model=MODEL,
    )
    events.record_attempts([attempt])
    sandbox.add_external_usage("Hello", unix=at.timestamp(), model_id=MODEL, voice_id=voice.provider_id)
    sandbox.fault(kind="stall_headers", match={"path": "character-stats"})
    env = environment(DATABASE_URL=database_url(), ELEVENLABS_BASE_URL=sandbox.url, VOICECARE_DATA_DIR=tmp_path)
    command = [sys.executable, str(ROOT / "manage.py"), "reconcile"]
    with subprocess.Popen(command, env=env, cwd=ROOT) as process:
        until(lambda: UsageEvent.objects.filter(code="billed").exists())
        process.kill()
    assert Reconciliation.objects.get(day=at.date()).checked_at is None
    sandbox.clear_faults()
    assert str(at.date()) not in reconcile()  # the killed run still has the lease
    Reconciliation.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert f"{at.date()}: Characters: 5 in the ledger and at the provider." in reconcile()
    assert (DailyUsage.objects.get().characters, UsageEvent.objects.get().characters) == (5, 5)
