"""Requests of erased patients and in withdrawn voices are deleted from the provider's history, and nothing else is.

The provider is the sandbox, on a real socket.
"""

import os
import signal
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from cloning.consent import withdrawal
from cloning.models import CloneJob
from tests.conftest import DEFAULT_VOICE, OTHER_VOICE, Member
from tests.sandbox import ROOT, SandboxProcess
from tests.waiting import until
from tts.conversations import retention
from usage.alerts.impact import impact_of
from usage.ledger import events
from usage.ledger.events import Attempt
from usage.models import HistoryDeletion, Incident, UsageEvent
from usage.provider_history import deletion
from voicecare.patients.models import Patient, Voice
from voicecare.providers.elevenlabs.account import AccountClient

pytestmark = pytest.mark.django_db(transaction=True)

HISTORY = "^/v1/history"


@pytest.fixture(autouse=True)
def provider(sandbox: SandboxProcess, settings: Settings) -> SandboxProcess:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    settings.ERASURE_GRACE_DAYS = 0
    return sandbox


def request(provider: SandboxProcess, member: Member | None, minutes_ago: float = 60, **fields: Any) -> str:
    """Let the provider bill a request, recorded in the ledger if it is of a patient. Returns its id."""
    at = timezone.now() - timedelta(minutes=minutes_ago)
    sale = provider.add_external_usage("Good morning.", unix=at.timestamp(), **fields)
    if member is not None:
        made = Attempt(uuid.uuid4(), 0, 1, "live", 13, patient_id=member.patient.pk, started_at=at)
        made.mark_answered(sale["request_id"], 7)
        events.record_attempts([made])
    return sale["request_id"]


def in_history(provider: SandboxProcess) -> set[str | None]:
    client = AccountClient(provider.url, "key")
    try:
        return {item.request_id for item in client.history()}
    finally:
        client.close()


def erase(member: Member) -> HistoryDeletion:
    Patient.objects.filter(pk=member.patient.pk).update(erases_at=timezone.now(), erased_at=timezone.now())
    retention.erase_patients()
    return HistoryDeletion.objects.get(patient=member.patient.pk, voice=None)


def settle(minutes: float = 61) -> None:
    """Let an hour pass for all deletions, so that they can be done."""
    for row in HistoryDeletion.objects.all():
        HistoryDeletion.objects.filter(pk=row.pk).update(
            covers_until=row.covers_until - timedelta(minutes=minutes), next_attempt_at=None, lease_until=None
        )


def sweep(row: HistoryDeletion) -> HistoryDeletion:
    HistoryDeletion.objects.filter(pk=row.pk).update(next_attempt_at=None)
    deletion.sweep()
    row.refresh_from_db()
    return row


def incident_states() -> list[bool]:
    return [row.resolved_at is None for row in Incident.objects.filter(kind="history").order_by("opened_at")]


def test_exactly_the_requests_of_the_erased_patient_go(provider: SandboxProcess, alice: Member, bob: Member):
    theirs = {request(provider, alice, minutes) for minutes in (3, 5, 600, 6000)}
    others = {request(provider, bob, 4), request(provider, bob, 601), request(provider, None, 5)}
    assert in_history(provider) == theirs | others
    row = sweep(erase(alice))
    assert in_history(provider) == others
    assert (row.deleted, row.passes, row.done_at) == (4, 1, None)  # a last request may still be recorded
    settle()
    row = sweep(row)
    assert (row.deleted, row.passes, row.failures) == (4, 2, 0)
    assert row.done_at is not None
    assert in_history(provider) == others


def test_a_request_that_appears_late_is_deleted(provider: SandboxProcess, alice: Member):
    row = sweep(erase(alice))
    late = request(provider, alice, 1)
    settle(60)
    assert late in in_history(provider)
    row = sweep(row)
    assert (in_history(provider), row.done_at) == (set(), None)
    row = sweep(row)
    assert row.done_at is not None


def test_a_long_history_is_read_in_pages_and_windows(
    provider: SandboxProcess, alice: Member, bob: Member, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deletion, "WINDOW_REQUESTS", 3)
    for minutes in range(2, 22, 2):
        request(provider, alice, minutes)
        request(provider, bob, minutes + 1)
    row = sweep(erase(alice))
    assert row.deleted == 10
    assert len(in_history(provider)) == 10


def test_an_attempt_that_was_never_answered_delays_the_end(provider: SandboxProcess, alice: Member):
    lost = Attempt(uuid.uuid4(), 0, 1, "live", 13, patient_id=alice.patient.pk)
    events.record_attempts([lost])
    row = sweep(erase(alice))
    settle()
    HistoryDeletion.objects.update(covers_until=timezone.now())
    assert sweep(row).done_at is None
    found = request(provider, None, 1)  # reconciliation finds out that this was the request
    events.resolve_unknown(UsageEvent.objects.get(source=lost.source_id).pk, request_id=found, credits=7)
    sweep(row)
    assert in_history(provider) == set()
    assert sweep(row).done_at is not None


def test_all_requests_in_a_withdrawn_voice_go(provider: SandboxProcess, alice: Member, clone: Voice):
    in_it = {request(provider, None, minutes, voice_id=clone.provider_id) for minutes in (1, 1000)}
    others = {request(provider, alice, 2, voice_id=OTHER_VOICE), request(provider, None, 3, voice_id=DEFAULT_VOICE)}
    assert in_history(provider) == in_it | others
    withdrawal.withdraw(clone.clone_job)
    row = HistoryDeletion.objects.get()
    assert (row.voice, row.patient, row.provider_voice_id) == (clone.pk, alice.patient.pk, clone.provider_id)
    row = sweep(row)
    assert (in_history(provider), row.deleted) == (others, 2)
    settle()
    assert sweep(row).done_at is not None


@pytest.fixture
def clone(alice: Member, provider: SandboxProcess) -> Voice:
    provider_id = provider.add_voice("vc-clone", category="cloned")["voice_id"]
    voice = Voice.objects.create(
        provider_id=provider_id, name="Anna", source=Voice.Source.CLONED, patient=alice.patient
    )
    CloneJob.objects.create(
        patient=alice.patient, name="Anna", consent_by="Anna Archer", status="ready", voice=voice, sample_digest="d"
    )
    return voice


def test_the_requests_of_several_pages_go(provider: SandboxProcess, clone: Voice):
    for number in range(1_003):
        provider.add_external_usage("Hello.", unix=timezone.now().timestamp() - number, voice_id=clone.provider_id)
    withdrawal.withdraw(clone.clone_job)
    row = sweep(HistoryDeletion.objects.get())
    assert (row.deleted, row.failures, in_history(provider)) == (1_003, 0, set())


def test_a_provider_that_ignores_the_filters_loses_nothing_of_others(
    provider: SandboxProcess, alice: Member, bob: Member, clone: Voice
):
    provider.settings(history_filters=False)
    request(provider, None, 1, voice_id=clone.provider_id)
    request(provider, alice, 4)
    others = {request(provider, bob, 2, voice_id=OTHER_VOICE), request(provider, bob, 5000)}
    withdrawal.withdraw(clone.clone_job)
    sweep(HistoryDeletion.objects.get())
    sweep(erase(alice))
    assert in_history(provider) == others


def test_a_provider_that_fails_is_asked_again_later_and_reported_when_it_lasts(provider: SandboxProcess, alice: Member):
    request(provider, alice)
    row = erase(alice)
    provider.fault(kind="error", preset="service_unavailable", match={"path": HISTORY})
    before = timezone.now()
    row = sweep(row)
    assert (row.failures, row.is_refused, row.deleted, row.lease_until) == (1, False, 0, None)
    assert row.next_attempt_at is not None
    assert row.next_attempt_at - before > timedelta(seconds=40)
    assert incident_states() == []
    HistoryDeletion.objects.update(failing_since=timezone.now() - timedelta(hours=7))
    row = sweep(row)
    assert (row.failures, incident_states()) == (2, [True])
    provider.clear_faults()
    row = sweep(row)
    assert (row.failures, row.deleted, row.error, incident_states()) == (0, 1, "", [False])


@pytest.mark.parametrize("path", [HISTORY + "$", HISTORY + "/"])
def test_a_key_without_the_permission_is_reported_immediately(provider: SandboxProcess, alice: Member, path: str):
    kept = request(provider, alice)
    row = erase(alice)
    provider.fault(kind="error", preset="missing_permissions", match={"path": path})
    row = sweep(row)
    assert (row.is_refused, in_history(provider) if path.endswith("/") else {kept}) == (True, {kept})
    incident = Incident.objects.get(kind="history")
    assert "The API key may not do it: missing_permissions" in incident.detail
    impact = impact_of(incident)
    assert impact is not None
    assert [one.patient_id for one in impact] == [alice.patient.pk]


def test_a_worker_that_is_killed_in_the_middle_is_continued(provider: SandboxProcess, alice: Member, bob: Member):
    for minutes in range(2, 12):
        request(provider, alice, minutes)
    kept = request(provider, bob, 5)
    row = erase(alice)
    provider.fault(kind="stall_headers", seconds=30, match={"path": HISTORY + "/"}, every=5)
    worker = start_attempt(row, provider)
    until(lambda: HistoryDeletion.objects.get(pk=row.pk).deleted >= 4, within_s=60)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    provider.clear_faults()
    assert len(in_history(provider)) > 1
    sweep(row)
    assert len(in_history(provider)) > 1  # the lease of the killed worker has not expired
    HistoryDeletion.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    sweep(row)
    assert in_history(provider) == {kept}


def start_attempt(row: HistoryDeletion, provider: SandboxProcess) -> "subprocess.Popen[bytes]":
    code = f"import django; django.setup(); from usage.provider_history import deletion; deletion.run('{row.pk}')"
    name = connection.settings_dict["NAME"]
    url = f"sqlite:///{name}"
    if connection.vendor == "postgresql":
        where = connection.settings_dict
        user, password = where["USER"], f":{where['PASSWORD']}" if where["PASSWORD"] else ""
        url = f"postgres://{user}{password}@{where['HOST']}:{where['PORT']}/{name}"
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "voicecare.settings",
        "DATABASE_URL": url,
        "ELEVENLABS_BASE_URL": provider.url,
    }
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(ROOT), env=env)


def test_two_workers_do_not_delete_at_the_same_time(provider: SandboxProcess, alice: Member):
    request(provider, alice)
    row = erase(alice)
    HistoryDeletion.objects.update(lease_until=timezone.now() + timedelta(minutes=1))
    row = sweep(row)
    assert (row.deleted, len(in_history(provider))) == (0, 1)


def test_with_zero_retention_nothing_is_found_and_the_deletion_ends(
    provider: SandboxProcess, alice: Member, settings: Settings
):
    settings.ELEVENLABS_ZERO_RETENTION = True
    request(provider, alice, kept=False)
    row = erase(alice)
    settle()
    row = sweep(row)
    assert (row.deleted, row.done_at is not None) == (0, True)


@pytest.mark.parametrize("state", [{}, {"failures": 1, "is_refused": True, "error": "missing"}, {"done_at": "now"}])
def test_the_admin_shows_deletions(alice: Member, client: Client, state: dict[str, Any]):
    state = {name: timezone.now() if value == "now" else value for name, value in state.items()}
    row = HistoryDeletion.objects.create(patient=alice.patient.pk, covers_until=timezone.now(), **state)
    client.force_login(User.objects.create_superuser("boss"))
    word = "Refused" if row.is_refused else "Nothing left" if row.done_at else "In progress"
    for url in (
        reverse("admin:usage_historydeletion_changelist"),
        reverse("admin:usage_historydeletion_change", args=[row.pk]),
    ):
        page = client.get(url).content.decode()
        assert word in page
        assert "Alice Archer" in page


def test_each_erasure_asks_once(alice: Member):
    erase(alice)
    retention.erase_patients()
    assert HistoryDeletion.objects.count() == 1
