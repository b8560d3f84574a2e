"""The nightly check of zero retention, against the sandbox on a real socket."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django.utils import timezone
from pytest_django import Settings

from tests.sandbox import SandboxProcess
from usage.models import Incident, RetentionCheck, UsageEvent
from voicecare.health import zero_retention
from voicecare.health.parts import Part, check_parts
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db(transaction=True)

NIGHT = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def provider(transactional_db: None, sandbox: SandboxProcess, settings: Settings) -> SandboxProcess:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    settings.ELEVENLABS_ZERO_RETENTION = True
    sandbox.settings(first_byte_ms=0)
    Voice.objects.default()
    return sandbox


def step(now: datetime = NIGHT) -> RetentionCheck:
    """Make the next step, as if its time had come."""
    RetentionCheck.objects.update(next_step_at=None)
    zero_retention.check(now)
    return RetentionCheck.objects.latest("night")


def incident_states() -> list[bool]:
    return [row.resolved_at is None for row in Incident.objects.filter(kind="retention").order_by("opened_at")]


def health() -> Part:
    return next(part for part in async_to_sync(check_parts)() if part.name == "zero_retention")


def test_a_request_that_is_absent_from_the_history_is_the_proof(provider: SandboxProcess):
    assert (health().status, health().state) == ("warning", "never proved")
    sent = step()
    request = provider.requests()[0]
    assert (request["enable_logging"], request["request_id"]) == (False, sent.request_id)
    event = UsageEvent.objects.get()
    assert (event.kind, event.characters, event.request_id) == ("probe", 6, sent.request_id)
    done = step()
    assert (done.is_found, done.checked_at is not None, done.error) == (False, True, "")
    step()
    assert len(provider.requests()) == 1  # once a night
    assert incident_states() == []
    assert health().status == "ok"
    assert health().state == f"last proved at {done.checked_at:%Y-%m-%d %H:%M:%S UTC}"


def test_a_request_in_the_history_opens_the_incident_until_a_later_night(provider: SandboxProcess):
    provider.settings(zero_retention=False)
    step()
    assert step().is_found
    assert incident_states() == [True]
    assert "is in the history" in Incident.objects.get().detail
    assert (health().status, health().state[:13]) == ("failure", "not effective")
    provider.settings(zero_retention=True)
    step(NIGHT + timedelta(days=1))
    assert incident_states() == [True]
    step(NIGHT + timedelta(days=1))
    assert incident_states() == [False]
    assert health().status == "ok"


def test_the_history_is_read_half_an_hour_later(provider: SandboxProcess):
    step()
    zero_retention.check(NIGHT)
    row = RetentionCheck.objects.get()
    assert (row.checked_at, row.attempts) == (None, 1)
    assert row.next_step_at is not None
    assert row.next_step_at - timezone.now() > timedelta(minutes=25)


@pytest.mark.parametrize("path", ["^/v1/text-to-speech", "^/v1/history"])
def test_a_step_that_fails_is_repeated_later(provider: SandboxProcess, path: str):
    provider.fault(kind="error", preset="missing_permissions", match={"path": path})
    step()
    row = step()
    assert "missing_permissions" in row.error
    assert row.checked_at is None
    assert "missing_permissions" in health().state
    assert incident_states() == []
    provider.clear_faults()
    step()
    assert step().is_found is False


def test_several_workers_send_one_request(provider: SandboxProcess):
    def check() -> None:
        try:
            zero_retention.check(NIGHT)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as workers:
        for done in [workers.submit(check) for _ in range(4)]:
            done.result()
    assert len(provider.requests()) == 1


def test_it_can_be_turned_off(provider: SandboxProcess, settings: Settings):
    settings.ZERO_RETENTION_CHECK = False
    zero_retention.check(NIGHT)
    assert (provider.requests(), health().status) == ([], "warning")
    Incident.objects.create(kind="retention")
    settings.ELEVENLABS_ZERO_RETENTION = False
    zero_retention.check(NIGHT)
    assert (provider.requests(), incident_states()) == ([], [False])
    assert "zero_retention" not in {part.name for part in async_to_sync(check_parts)()}
