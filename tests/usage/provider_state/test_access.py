"""Whether the provider accepts our key: each transition, with its incident."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import responses
from django.db import connection, transaction
from pytest_django import Settings

from tests.usage.provider_state.test_circuit import row, run_concurrently, seconds_ago, set_state
from tests.waiting import until
from usage.alerts.responses import mark_resolved
from usage.models import Incident
from usage.provider_state import access, quota
from usage.provider_state.access import STABLE_AFTER
from voicecare.providers.elevenlabs import credentials
from voicecare.providers.errors import AuthorizationError, Cause

pytestmark = pytest.mark.django_db

WRONG_KEY = AuthorizationError(code="invalid_api_key", status=401, request_id="r1", cause=Cause.KEY)
NO_PERMISSION = AuthorizationError(code="missing_permissions", status=401)
SUBSCRIPTION = "https://provider.test/v1/user/subscription"
CREDITS = {"character_count": 0, "character_limit": 1000}


def incidents() -> list[tuple[str, bool]]:
    """The key of each incident, and whether it is open."""
    rows = Incident.objects.filter(kind="access").order_by("opened_at")
    return [(incident.key, incident.resolved_at is None) for incident in rows]


def test_a_refused_key_opens_one_incident_and_an_accepted_call_resolves_it():
    access.report_refused(WRONG_KEY)
    access.report_refused(WRONG_KEY)
    assert (row().access, incidents()) == ("key", [("", True)])
    assert Incident.objects.get().detail == "invalid_api_key, HTTP 401, request r1."
    access.key_accepted()
    assert (row().access, incidents()) == ("granted", [("", False)])


def test_a_call_that_needs_no_permission_does_not_resolve_a_missing_permission():
    access.report_refused(NO_PERMISSION)
    access.key_accepted()
    assert (row().access, incidents()) == ("permission", [("", True)])
    access.speech_accepted()
    assert (row().access, incidents()) == ("granted", [("", False)])


def test_a_refused_key_replaces_a_missing_permission_and_not_the_other_way_round():
    for error, expected in [(NO_PERMISSION, "permission"), (WRONG_KEY, "key"), (NO_PERMISSION, "key")]:
        access.report_refused(error)
        assert row().access == expected
    assert incidents() == [("", True)]


def test_an_accepted_call_resolves_no_incident_of_clones():
    Incident.objects.create(kind="access", key="clones")
    access.report_refused(WRONG_KEY)
    access.speech_accepted()
    assert sorted(incidents()) == [("", False), ("clones", True)]


def test_nobody_can_resolve_the_incident_while_the_key_is_refused():
    access.report_refused(WRONG_KEY)
    assert not mark_resolved(Incident.objects.get().pk, "ann")
    assert incidents() == [("", True)]


def test_an_incident_soon_after_another_one_is_resolved_when_the_key_was_accepted_for_a_while():
    for _ in range(3):
        access.report_refused(WRONG_KEY)
        access.key_accepted()
    assert (row().access, sorted(is_open for _, is_open in incidents())) == ("granted", [False, True])
    access.resolve_stable_incident()
    assert [is_open for _, is_open in incidents()].count(True) == 1
    set_state(access_changed_at=seconds_ago(STABLE_AFTER.total_seconds() + 1))
    access.resolve_stable_incident()
    assert [is_open for _, is_open in incidents()].count(True) == 0


def test_a_refused_key_is_never_stable():
    access.report_refused(WRONG_KEY)
    set_state(access_changed_at=seconds_ago(3600))
    access.resolve_stable_incident()
    assert incidents() == [("", True)]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no row locks: its writers run one by one")
@pytest.mark.django_db(transaction=True)
def test_a_refusal_during_a_grant_leaves_the_state_and_the_incident_in_agreement():
    access.report_refused(WRONG_KEY)
    with ThreadPoolExecutor(1) as other:
        with transaction.atomic():
            access.key_accepted()
            refusing = other.submit(in_own_connection, lambda: access.report_refused(WRONG_KEY))
            until(waiting_for_a_lock)
        refusing.result(10)
    assert (row().access, [is_open for _, is_open in incidents()].count(True)) == ("key", 1)


def in_own_connection(work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        connection.close()


def waiting_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # otherwise a transaction sees its first answer again
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
        return cursor.fetchone() is not None


@pytest.mark.django_db(transaction=True)
def test_processes_that_report_at_the_same_time_open_one_incident():
    run_concurrently(lambda: access.report_refused(WRONG_KEY))
    assert incidents() == [("", True)]


def test_the_incident_names_a_recent_change_of_the_key(tmp_path: Path, settings: Settings):
    path = tmp_path / "key"
    settings.ELEVENLABS_API_KEY_FILE = str(path)
    for number, age_s in enumerate((100, 50)):
        path.write_text(f"sk_{number}")
        os.utime(path, (time.time() - age_s,) * 2)
        credentials.api_key()
    access.report_refused(WRONG_KEY)
    detail = Incident.objects.get().detail
    assert "The key in ELEVENLABS_API_KEY_FILE was changed at" in detail
    assert "sk_" not in detail


# The free poll of the subscription


def refusal(code: str) -> dict[str, object]:
    return {"detail": {"status": code, "message": "m"}}


def test_the_poll_of_the_subscription_finds_a_wrong_key_and_its_end(settings: Settings):
    with responses.RequestsMock() as mock:
        settings.ELEVENLABS_BASE_URL = "https://provider.test"
        mock.get(SUBSCRIPTION, status=401, json=refusal("invalid_api_key"))
        quota.poll()
    assert (row().access, incidents()) == ("key", [("", True)])
    with responses.RequestsMock() as mock:
        mock.get(SUBSCRIPTION, json=CREDITS)
        quota.poll_now()
    assert (row().access, incidents()) == ("granted", [("", False)])


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, refusal("missing_permissions")), (403, refusal("insufficient_permissions"))],
)
def test_a_key_that_may_not_read_the_subscription_is_accepted(status: int, body: dict[str, object], settings: Settings):
    access.report_refused(WRONG_KEY)
    settings.ELEVENLABS_BASE_URL = "https://provider.test"
    with responses.RequestsMock() as mock:
        mock.get(SUBSCRIPTION, status=status, json=body)
        quota.poll()  # due at once after a refusal
    assert (row().access, incidents()) == ("granted", [("", False)])


@pytest.mark.parametrize(
    ("status", "code"), [(500, "x"), (429, "system_busy"), (401, "quota_exceeded"), (401, "detected_unusual_activity")]
)
def test_no_other_failure_of_the_poll_says_anything_about_the_key(status: int, code: str, settings: Settings):
    settings.ELEVENLABS_BASE_URL = "https://provider.test"
    with responses.RequestsMock() as mock:
        mock.get(SUBSCRIPTION, status=status, json=refusal(code))
        quota.poll()
    assert (row().access, incidents()) == ("granted", [])
