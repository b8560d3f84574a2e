"""The audit finds lost and changed voices, and deletes duplicates and voices of ended jobs."""

from collections.abc import Callable

import pytest
import responses
from pytest_django import Settings

from cloning.jobs import runner
from cloning.models import CloneJob
from cloning.voices import audit
from tests.cloning import at_provider
from tests.conftest import OTHER_VOICE, Member
from tests.sandbox import SandboxProcess
from tts.conversations.lifecycle import resolve_voice
from usage.alerts import incidents
from usage.models import Incident
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., CloneJob]


@pytest.fixture
def ready(job: Make, provider: SandboxProcess) -> CloneJob:
    clone = job()
    runner.run(clone.pk)
    return CloneJob.objects.get(pk=clone.pk)


def audited(job: CloneJob) -> CloneJob:
    audit.audit_voices()
    return CloneJob.objects.get(pk=job.pk)


def test_nothing_changes_if_all_voices_exist(ready: CloneJob, provider: SandboxProcess):
    assert audited(ready).voice.is_usable
    assert set(Voice.objects.values_list("state", flat=True)) == {"usable"}
    assert not Incident.objects.exists()
    assert len(at_provider.ids(provider)) == 1


def test_a_lost_voice_opens_an_incident_and_can_be_created_again(
    ready: CloneJob, provider: SandboxProcess, alice: Member
):
    at_provider.remove(provider, ready.voice.provider_id)
    job = audited(ready)
    assert (job.voice.state, job.is_retryable) == ("gone", True)
    assert resolve_voice(Patient.objects.get(pk=alice.patient.pk))[1] == "default"
    incident = Incident.objects.get()
    assert (incident.kind, incident.key) == ("voice", str(job.voice_id))
    assert "Retry the clone" in incident.detail
    assert "Anna" not in incident.detail
    runner.retry(job)
    runner.run(job.pk)
    assert Incident.objects.get().resolved_at is not None
    assert resolve_voice(Patient.objects.get(pk=alice.patient.pk))[1] == "cloned"


def test_the_incident_does_not_suggest_a_retry_without_the_recording(ready: CloneJob, provider: SandboxProcess):
    CloneJob.objects.update(sample="")
    at_provider.remove(provider, ready.voice.provider_id)
    assert not audited(ready).is_retryable
    assert "Retry" not in Incident.objects.get().detail


def test_a_changed_clone_is_marked_as_gone(ready: CloneJob, provider: SandboxProcess):
    at_provider.rename(provider, ready.voice.provider_id, "somebody else")
    assert audited(ready).voice.state == "gone"
    assert "changed" in Incident.objects.get().detail


def test_a_lost_voice_opens_one_incident(ready: CloneJob, provider: SandboxProcess):
    at_provider.remove(provider, ready.voice.provider_id)
    audit.audit_voices()
    audit.audit_voices()
    assert Incident.objects.count() == 1


def test_a_lost_stock_voice_is_marked_as_gone(provider: SandboxProcess):
    voice = Voice.objects.create(provider_id="9" * 20, name="Away")
    audit.audit_voices()
    voice.refresh_from_db()
    assert voice.state == "gone"


def test_a_voice_that_is_missing_in_the_list_is_requested_by_its_id(settings: Settings):
    settings.ELEVENLABS_BASE_URL = base = "https://provider.test"
    voice = Voice.objects.create(provider_id="library", name="Library")
    with responses.RequestsMock() as mock:
        mock.get(f"{base}/v1/user/subscription", status=500)
        mock.get(f"{base}/v2/voices", json={"voices": [], "has_more": False})
        mock.get(f"{base}/v1/voices/library", json={"voice_id": "library", "name": "Library"})
        audit.audit_voices()
    voice.refresh_from_db()
    assert voice.is_usable


def test_a_clone_that_exists_again_is_restored_and_used(ready: CloneJob, provider: SandboxProcess, alice: Member):
    Voice.objects.filter(pk=ready.voice_id).update(state="gone")
    incidents.open_incident(incidents.Kind.VOICE, str(ready.voice_id))
    assert audited(ready).voice.is_usable
    assert Incident.objects.get().resolved_at is not None
    assert resolve_voice(Patient.objects.get(pk=alice.patient.pk))[1] == "cloned"


def test_a_changed_clone_is_not_restored(ready: CloneJob, provider: SandboxProcess):
    at_provider.rename(provider, ready.voice.provider_id, "somebody else")
    assert audited(ready).voice.state == "gone"
    assert audited(ready).voice.state == "gone"
    at_provider.rename(provider, ready.voice.provider_id, ready.provider_name)
    assert audited(ready).voice.is_usable


def test_a_clone_that_is_made_again_is_not_restored_meanwhile(ready: CloneJob, provider: SandboxProcess):
    Voice.objects.filter(pk=ready.voice_id).update(state="gone")
    CloneJob.objects.update(status="pending")
    assert audited(ready).voice.state == "gone"


def test_a_retry_keeps_a_voice_that_exists_again(ready: CloneJob, provider: SandboxProcess):
    Voice.objects.filter(pk=ready.voice_id).update(state="gone")
    lost = CloneJob.objects.get(pk=ready.pk)
    runner.retry(lost)
    runner.run(lost.pk)
    assert at_provider.ids(provider) == [ready.voice.provider_id]
    assert Voice.objects.get(pk=ready.voice_id).is_usable


def test_a_stock_voice_that_exists_again_is_restored(provider: SandboxProcess):
    voice = Voice.objects.create(provider_id=OTHER_VOICE, name="Sarah", state="gone")
    audit.audit_voices()
    voice.refresh_from_db()
    assert voice.is_usable


def test_a_gone_voice_is_restored_although_the_list_omits_it_and_only_if_it_can_be_read(settings: Settings):
    settings.ELEVENLABS_BASE_URL = base = "https://provider.test"
    unlisted = Voice.objects.create(provider_id="unlisted", name="Unlisted", state="gone")
    listed = Voice.objects.create(provider_id="listed", name="Listed", state="gone")
    with responses.RequestsMock() as mock:
        mock.get(f"{base}/v1/user/subscription", status=500)
        mock.get(f"{base}/v2/voices", json={"voices": [{"voice_id": "listed"}], "has_more": False})
        mock.get(f"{base}/v1/voices/unlisted", json={"voice_id": "unlisted", "name": "Unlisted"})
        mock.get(f"{base}/v1/voices/listed", status=404, json={"detail": {"status": "voice_not_found"}})
        audit.audit_voices()
    states = dict(Voice.objects.filter(pk__in=[unlisted.pk, listed.pk]).values_list("name", "state"))
    assert states == {"Unlisted": "usable", "Listed": "gone"}


def test_a_wrong_key_marks_no_voice_and_is_one_incident(ready: CloneJob, provider: SandboxProcess):
    provider.fault(kind="error", preset="invalid_api_key", match={"path": "^/v"})
    audit.audit_voices()
    assert audited(ready).voice.is_usable
    assert Incident.objects.get().kind == "access"


def test_changed_clones_are_one_incident(job: Make, provider: SandboxProcess):
    provider.settings(voice_limit=99)
    for number in range(5):
        clone = job(name=f"Anna {number}")
        voice_id = at_provider.add(provider, "somebody else")
        voice = Voice.objects.create(provider_id=voice_id, name="Anna", source="cloned", patient=clone.patient)
        CloneJob.objects.filter(pk=clone.pk).update(status="ready", voice=voice)
        Patient.objects.filter(pk=clone.patient_id).update(**({"backup_voice": voice} if number else {"voice": voice}))
    audit.audit_voices()
    assert "5 voices are gone" in Incident.objects.get().detail


@pytest.mark.parametrize("path", ["^/v2/voices", "^/v1/voices/"])
def test_nothing_changes_if_the_provider_does_not_answer(path: str, ready: CloneJob, provider: SandboxProcess):
    at_provider.remove(provider, ready.voice.provider_id)
    provider.fault(kind="error", preset="service_unavailable", match={"path": path})
    assert audited(ready).voice.is_usable
    assert not Incident.objects.exists()


def test_a_duplicate_voice_of_a_job_is_deleted(ready: CloneJob, provider: SandboxProcess):
    """The provider created it after the lease had expired."""
    at_provider.add(provider, ready.provider_name)
    audited(ready)
    assert at_provider.ids(provider) == [ready.voice.provider_id]


@pytest.mark.parametrize(
    ("fields", "remaining"),
    [
        ({"status": "failed", "error_code": "busy"}, 0),
        ({"status": "withdrawn", "sample": ""}, 0),
        ({"status": "pending"}, 1),
        ({"status": "withdrawing"}, 1),
    ],
)
def test_a_voice_of_an_ended_job_without_a_voice_is_deleted(
    fields: dict, remaining: int, job: Make, provider: SandboxProcess
):
    at_provider.add(provider, job(**fields).provider_name)
    audit.audit_voices()
    assert len(at_provider.ids(provider)) == remaining


@pytest.mark.parametrize("name", ["Anna", "vc-", "vc-0", "vc-00000000-0000-4000-8000-000000000000"])
def test_voices_of_others_are_kept(name: str, provider: SandboxProcess):
    voice_id = at_provider.add(provider, name)
    audit.audit_voices()
    assert at_provider.ids(provider) == [voice_id]


def test_used_up_voice_slots_open_an_incident(provider: SandboxProcess):
    provider.settings(voice_limit=0)
    audit.audit_voices()
    assert Incident.objects.get().kind == "voice_slots"


@pytest.mark.parametrize("verified", [True, False])
def test_a_voice_is_activated_after_its_verification(verified: bool, job: Make, settings: Settings, alice: Member):
    settings.ELEVENLABS_BASE_URL = base = "https://provider.test"
    voice = Voice.objects.create(provider_id="v", name="Anna", source="cloned", patient=alice.patient)
    clone = job(status="ready", voice=voice, requires_verification=True)
    check = {"requires_verification": True, "is_verified": verified}
    listed = [{"voice_id": "v", "name": clone.provider_name, "category": "cloned", "voice_verification": check}]
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.get(f"{base}/v1/user/subscription", status=500)
        mock.get(f"{base}/v2/voices", json={"voices": [*listed, {"voice_id": OTHER_VOICE}], "has_more": False})
        mock.get(f"{base}/v1/voices/{settings.DEFAULT_VOICE_ID}", json={"voice_id": settings.DEFAULT_VOICE_ID})
        audit.audit_voices()
    assert CloneJob.objects.get().requires_verification is not verified
    assert (Patient.objects.get(pk=alice.patient.pk).voice == voice) is verified


def test_a_voice_that_newly_requires_verification_is_marked_as_gone(job: Make, settings: Settings, alice: Member):
    settings.ELEVENLABS_BASE_URL = base = "https://provider.test"
    voice = Voice.objects.create(provider_id="v", name="Anna", source="cloned", patient=alice.patient)
    clone = job(status="ready", voice=voice)
    check = {"requires_verification": True, "is_verified": False}
    listed = [{"voice_id": "v", "name": clone.provider_name, "category": "cloned", "voice_verification": check}]
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.get(f"{base}/v1/user/subscription", status=500)
        mock.get(f"{base}/v2/voices", json={"voices": [*listed, {"voice_id": OTHER_VOICE}], "has_more": False})
        mock.get(f"{base}/v1/voices/{settings.DEFAULT_VOICE_ID}", json={"voice_id": settings.DEFAULT_VOICE_ID})
        audit.audit_voices()
    voice.refresh_from_db()
    assert voice.state == "gone"
