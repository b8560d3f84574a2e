"""Lost voices: what the provider must say before a voice is marked, and the one incident about many of them."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import responses
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from tests.locks import is_blocking
from tests.waiting import until
from usage.alerts import impact, lost_voices
from usage.models import Incident
from voicecare.patients.models import Patient, Voice
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.errors import Cause, VoiceUnavailable

pytestmark = pytest.mark.django_db(transaction=True)

BASE = "https://provider.test"
NOT_FOUND = {"detail": {"type": "not_found", "code": "voice_not_found", "message": "m", "status": "voice_not_found"}}
REFUSAL = VoiceUnavailable(code="voice_not_found", status=404, request_id="req-4711", cause=Cause.VOICE_MISSING)
PLAN = VoiceUnavailable(code="ivc_not_permitted", status=403, request_id="req-4712", cause=Cause.PLAN)


@pytest.fixture
def provider(settings: Settings) -> Iterator[responses.RequestsMock]:
    """A provider whose answers each test sets. It has no voice that a test has not added."""
    settings.ELEVENLABS_BASE_URL = BASE
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def lists(provider: responses.RequestsMock, *voices: Voice, **reply: Any) -> None:
    listed = [{"voice_id": voice.provider_id, "name": "x"} for voice in voices]
    provider.get(f"{BASE}/v2/voices", **(reply or {"json": {"voices": listed, "has_more": False}}))


def answers(provider: responses.RequestsMock, voice: Voice, **reply: Any) -> None:
    provider.get(f"{BASE}/v1/voices/{voice.provider_id}", **reply)


def has(provider: responses.RequestsMock, *voices: Voice) -> None:
    for voice in voices:
        answers(provider, voice, json={"voice_id": voice.provider_id, "name": "x"})


def lacks(provider: responses.RequestsMock, *voices: Voice) -> None:
    for voice in voices:
        answers(provider, voice, status=404, json=NOT_FOUND)


@pytest.fixture
def clones(member: Callable[..., Member]) -> Callable[[int], list[Voice]]:
    """Return a function that creates patients, each with a cloned voice."""

    def make(count: int) -> list[Voice]:
        made = []
        for number in range(count):
            patient = member(f"Patient Secret{number}").patient
            voice = Voice.objects.create(
                provider_id=uuid.uuid4().hex[:20], name=f"Relative {number}", source="cloned", patient=patient
            )
            Patient.objects.filter(pk=patient.pk).update(voice=voice)
            made.append(voice)
        return made

    return make


def states(*voices: Voice) -> set[str]:
    return set(Voice.objects.filter(pk__in=[voice.pk for voice in voices]).values_list("state", flat=True))


def check_all() -> None:
    client = AccountClient(BASE, "key")
    lost_voices.mark_missing(lost_voices.survey(client, Voice.objects.all()))
    client.close()


def test_many_lost_voices_are_one_incident_that_says_how_many_and_whom(provider, clones):
    voices = clones(60)
    default = Voice.objects.default()
    lost, kept = voices[:45], voices[45:]
    lists(provider, default, *kept)
    lacks(provider, *lost)
    check_all()
    assert (states(*lost), states(default, *kept)) == ({"gone"}, {"usable"})
    incident = Incident.objects.get()
    assert (incident.kind, incident.key) == ("voice", "")
    assert "45 voices are gone" in incident.detail
    assert "45 patients" in incident.detail
    assert "Secret" not in incident.detail
    assert "Relative" not in incident.detail
    affected = impact.impact_of(incident)
    assert affected is not None
    assert {row.patient_id for row in affected} == {voice.patient_id for voice in lost}
    assert {row.description for row in affected} == {"has this voice"}  # also for users who may not see names


@pytest.mark.parametrize(("minutes", "incidents"), [(2, 1), (30, 2)])
def test_voices_that_are_lost_one_after_the_other_share_an_incident(minutes: int, incidents: int, provider, clones):
    voices = clones(20)
    for number in range(3):
        provider.reset()
        lists(provider, Voice.objects.default(), *voices[number + 1 :])
        lacks(provider, *voices[: number + 1])
        check_all()
        Incident.objects.filter(key=str(voices[0].pk)).update(opened_at=timezone.now() - timedelta(minutes=minutes))
    assert sorted(Incident.objects.values_list("key", flat=True)) == ["", str(voices[0].pk)][:incidents]
    assert "3 voices are gone" in Incident.objects.get(key="").detail
    for voice in voices[:3]:
        lost_voices.restore(Voice.objects.get(pk=voice.pk))
    assert states(*voices) == {"usable"}
    assert not Incident.objects.filter(resolved_at=None).exists()


@contextmanager
def refusing_incidents() -> Iterator[None]:
    """Inside, the connection to the database breaks at each change of an incident."""

    def execute(run: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        if 'INTO "usage_incident"' in sql or 'UPDATE "usage_incident"' in sql:
            raise OperationalError("the connection is broken")
        return run(sql, *arguments)

    with connection.execute_wrapper(execute), pytest.raises(OperationalError):
        yield


@pytest.mark.parametrize("count", [1, 3])
def test_a_voice_is_not_marked_as_gone_without_its_incident(count: int, clones):
    voices = clones(count)
    with refusing_incidents():
        lost_voices.mark_gone(voices, "It is gone.")
    assert states(*voices) == {"usable"}
    lost_voices.mark_gone(voices, "It is gone.")
    assert (states(*voices), Incident.objects.count()) == ({"gone"}, 1)


def test_a_voice_is_not_restored_without_the_end_of_its_incident(clones):
    voices = clones(1)
    lost_voices.mark_gone(voices, "It is gone.")
    with refusing_incidents():
        lost_voices.restore(voices[0])
    assert states(*voices) == {"gone"}
    lost_voices.restore(voices[0])
    assert (states(*voices), Incident.objects.get().resolved_at is None) == ({"usable"}, False)


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer at a time")
def test_two_processes_that_restore_the_last_gone_voices_resolve_their_incident(clones):
    first, second = voices = clones(2)
    lost_voices.mark_gone(voices, "It is gone.")

    def restore_elsewhere() -> None:
        try:
            lost_voices.restore(second)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other:
        with transaction.atomic():
            lost_voices.restore(first)
            restoring = other.submit(restore_elsewhere)
            until(lambda: restoring.done() or is_blocking())
        restoring.result(20)
    assert states(*voices) == {"usable"}
    assert not Incident.objects.filter(resolved_at=None).exists()


@pytest.mark.parametrize("lost", [9, 10])
def test_a_key_of_another_workspace_marks_no_voice(lost: int, provider, clones):
    """Stock voices exist in every workspace."""
    voices = clones(10)
    stock = [Voice.objects.create(provider_id=f"stock{number}", name="Stock") for number in range(20)]
    lists(provider, Voice.objects.default(), *stock, *voices[lost:])
    lacks(provider, *voices[:lost])
    check_all()
    check_all()
    assert states(*voices) == {"usable"}
    incident = Incident.objects.get()
    assert (incident.kind, incident.key) == ("access", "workspace")
    assert f"{lost} of 31 voices" in incident.detail
    assert "another workspace" in incident.detail
    provider.reset()
    lists(provider, Voice.objects.default(), *stock, *voices)
    check_all()
    assert Incident.objects.get().resolved_at is not None


def test_a_workspace_without_any_voice_marks_none(provider):
    stock = [Voice.objects.default(), Voice.objects.create(provider_id="other", name="Other")]
    lists(provider)
    lacks(provider, *stock)
    check_all()
    assert states(*stock) == {"usable"}
    assert Incident.objects.get().kind == "access"


LIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the list is empty": ({}, {"json": {"voice_id": "v", "name": "x"}}),
    "the list is a 500": ({"status": 500}, {"status": 404, "json": NOT_FOUND}),
    "the list is a 404": ({"status": 404, "json": {"detail": "Not Found"}}, {"status": 404, "json": NOT_FOUND}),
    "the list knows no voice": ({"status": 404, "json": NOT_FOUND}, {"status": 404, "json": NOT_FOUND}),
    "the list is no list": ({"json": {"voices": None}}, {"status": 404, "json": NOT_FOUND}),
    "the list has no next page": ({"json": {"voices": [], "has_more": True}}, {"status": 404, "json": NOT_FOUND}),
    "the list is HTML": ({"body": "<html></html>"}, {"status": 404, "json": NOT_FOUND}),
    "a wrong key": ({}, {"status": 401, "json": {"detail": {"status": "invalid_api_key", "message": "m"}}}),
    "a 401 for the voice": ({}, {"status": 401, "json": NOT_FOUND}),
    "no access": ({}, {"status": 403, "json": {"detail": {"code": "voice_access_denied", "message": "m"}}}),
    "the plan": ({}, {"status": 403, "json": {"detail": {"status": "only_for_creator+", "message": "m"}}}),
    "a page of a proxy": ({}, {"status": 404, "body": "<html>Not Found</html>"}),
    "an unknown route": ({}, {"status": 404, "json": {"detail": "Not Found"}}),
    "a server error": ({}, {"status": 500, "json": NOT_FOUND}),
    "too many requests": ({}, {"status": 429, "json": NOT_FOUND}),
    "another voice": ({}, {"json": {"voice_id": "w", "name": "x"}}),
    "no voice in the answer": ({}, {"json": {}}),
}


@pytest.mark.parametrize(("listing", "lookup"), LIES.values(), ids=LIES)
def test_only_a_clear_answer_about_the_voice_marks_it(listing: dict, lookup: dict, provider):
    voice = Voice.objects.create(provider_id="v", name="Library")
    lists(provider, **listing)
    answers(provider, voice, **lookup)
    for check in (check_all, lambda: lost_voices.check_refused(voice.pk, REFUSAL)):
        try:
            check()
        except lost_voices.ProviderError:
            assert check is check_all
    assert states(voice) == {"usable"}


def test_a_voice_without_a_clear_answer_does_not_stop_the_check_of_others(provider, clones):
    unclear, lost, *kept = clones(5)
    lists(provider, Voice.objects.default(), *kept)
    answers(provider, unclear, status=500)
    lacks(provider, lost)
    check_all()
    assert (states(unclear), states(lost), states(*kept)) == ({"usable"}, {"gone"}, {"usable"})


# A refused request


def test_a_refused_voice_that_does_not_exist_is_marked_although_the_list_still_has_it(provider, clones):
    lost, *kept = clones(3)
    lists(provider, Voice.objects.default(), lost, *kept)
    lacks(provider, lost)
    lost_voices.check_refused(lost.pk, REFUSAL)
    assert (states(lost), states(*kept)) == ({"gone"}, {"usable"})
    incident = Incident.objects.get()
    assert (incident.kind, incident.key) == ("voice", str(lost.pk))


def test_the_first_refusal_finds_all_lost_voices(provider, clones):
    voices = clones(20)
    lists(provider, Voice.objects.default(), *voices[:10])
    lacks(provider, *voices[10:])
    for voice in voices[10:]:
        lost_voices.check_refused(voice.pk, REFUSAL)
    assert states(*voices[10:]) == {"gone"}
    assert "10 voices are gone" in Incident.objects.get().detail


def test_refusals_with_a_key_of_another_workspace_mark_no_voice(provider, clones):
    voices = clones(10)
    lists(provider)
    lacks(provider, *voices, Voice.objects.default())
    for voice in voices:
        lost_voices.check_refused(voice.pk, REFUSAL)
    assert states(*voices) == {"usable"}
    assert Incident.objects.get().kind == "access"
    assert sum(call.request.url.startswith(f"{BASE}/v2/voices") for call in provider.calls) == 1


def test_a_refused_voice_that_exists_is_reported_and_not_marked(provider, clones):
    (voice,) = clones(1)
    has(provider, voice)
    lost_voices.check_refused(voice.pk, REFUSAL)
    assert states(voice) == {"usable"}
    incident = Incident.objects.get()
    assert (incident.kind, incident.key) == ("voice", str(voice.pk))
    assert "still has it" in incident.detail
    assert "req-4711" in incident.detail


def test_a_refusal_about_the_plan_asks_nothing_marks_nothing_and_is_one_incident(provider, clones):
    voices = clones(5)
    for voice in voices:
        lost_voices.check_refused(voice.pk, PLAN)
    assert states(*voices) == {"usable"}
    assert len(provider.calls) == 0
    assert "plan" in Incident.objects.get().detail


def test_a_voice_that_is_gone_already_is_not_asked_for(provider, clones):
    (voice,) = clones(1)
    Voice.objects.update(state="gone")
    lost_voices.check_refused(voice.pk, REFUSAL)
    assert len(provider.calls) == 0
    assert not Incident.objects.exists()
