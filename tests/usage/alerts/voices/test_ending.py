"""Voices that will end: one incident for each day, a proposed successor, and the move on the day."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from usage.alerts import impact
from usage.alerts.voices import ending
from usage.models import Incident
from voicecare.patients.models import DefaultVoice, Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)

SOON = timezone.now().replace(microsecond=0) + timedelta(days=20)


@pytest.fixture(autouse=True)
def unset(settings: Settings) -> None:
    settings.DEFAULT_VOICE_ID = ""


def voice(name: str, **fields: object) -> Voice:
    """A voice of the provider, which has been read."""
    return Voice.objects.create(**{"provider_id": f"id-{name}", "name": name, "read_at": timezone.now(), **fields})


def patient_with(member: Callable[..., Member], name: str, own: Voice | None) -> Patient:
    patient = member(name).patient
    Patient.objects.filter(pk=patient.pk).update(voice=own)
    return patient


def move(ending_voice: Voice, to: datetime) -> None:
    Voice.objects.filter(pk=ending_voice.pk).update(ends_at=to)


def details() -> dict[str, str]:
    return dict(Incident.objects.filter(resolved_at=None, kind="voice_ending").values_list("key", "detail"))


def test_an_incident_for_each_day_names_voices_successors_and_numbers(member: Callable[..., Member]):
    rachel = voice("Rachel", gender="female", accent="american")
    assert Voice.objects.default() == rachel
    george = voice("George", gender="male", accent="british")
    voice("Adam", gender="male", accent="american")
    voice("Daniel", gender="male", accent="british")
    voice("Lily", gender="female", accent="british")
    bob = patient_with(member, "Bob Secret", None)
    carol = patient_with(member, "Carol Secret", george)
    ending.check()
    assert details() == {}
    move(rachel, SOON)
    move(george, SOON + timedelta(days=1))
    ending.check()
    assert details() == {
        f"{SOON:%Y-%m-%d}": f"On {SOON:%Y-%m-%d}: Rachel (default voice), then Lily. "
        "Patients who hear one of these voices: 1.",
        f"{SOON + timedelta(days=1):%Y-%m-%d}": f"On {SOON + timedelta(days=1):%Y-%m-%d}: George, then Daniel. "
        "Patients who hear one of these voices: 1.",
    }
    affected = {
        incident.key: [(row.patient_id, row.description) for row in impact.impact_of(incident) or ()]
        for incident in Incident.objects.all()
    }
    assert list(affected.values()) in (
        [[(bob.pk, "hears Rachel")], [(carol.pk, "hears George")]],
        [[(carol.pk, "hears George")], [(bob.pk, "hears Rachel")]],
    )
    Voice.objects.update(ends_at=None)
    ending.check()
    assert details() == {}


def test_an_administrators_successor_stays():
    rachel, adam, _ = voice("Rachel", gender="female"), voice("Adam", gender="male"), voice("Sarah", gender="female")
    assert Voice.objects.default().name == "Adam"
    Voice.objects.filter(pk=adam.pk).update(ends_at=SOON, successor=rachel)
    ending.check()
    assert Voice.objects.get(pk=adam.pk).successor == rachel


@pytest.mark.parametrize("problem", [{"state": "gone"}, {"read_at": None}], ids=["gone", "never read"])
def test_a_successor_that_cannot_speak_is_replaced(problem: dict[str, object]):
    """A wrong DEFAULT_VOICE_ID has a row, but the provider has never had such a voice."""
    rachel, phantom, sarah = voice("Rachel"), voice("Default"), voice("Sarah")
    Voice.objects.filter(pk=phantom.pk).update(category="professional", **problem)
    DefaultVoice.objects.create(voice=rachel)
    Voice.objects.filter(pk=rachel.pk).update(ends_at=SOON)
    for earlier in (phantom, None):
        Voice.objects.filter(pk=rachel.pk).update(successor=earlier)
        ending.check()
        assert Voice.objects.get(pk=rachel.pk).successor == sarah


def test_a_voice_that_nobody_uses_is_not_reported():
    voice("Adam")
    assert Voice.objects.default().name == "Adam"
    voice("Rachel", ends_at=SOON)
    ending.check()
    assert details() == {}


def test_on_the_day_patients_get_the_successor(member: Callable[..., Member]):
    default = voice("Adam")
    assert Voice.objects.default() == default
    rachel = voice("Rachel", ends_at=timezone.now() + timedelta(minutes=30), successor=voice("Sarah"))
    alone = voice("George", ends_at=timezone.now() - timedelta(days=1))
    clone = voice("Clone", source="cloned", ends_at=timezone.now())
    patients = [patient_with(member, f"Patient {one}", one) for one in (rachel, alone, clone)]
    Voice.objects.filter(pk=clone.pk).update(patient=patients[2])
    ending.check()
    voices = [Patient.objects.get(pk=patient.pk).voice for patient in patients]
    proposed = [Voice.objects.get(pk=one.pk).successor for one in (alone, clone)]
    assert voices == [rachel.successor, *proposed]
    assert None not in proposed
    assert details() == {}


def test_the_servers_choice_moves_on_the_day_and_stays_if_the_voice_continues():
    rachel, sarah = voice("Rachel"), voice("Sarah")
    assert Voice.objects.default() == rachel
    Voice.objects.filter(pk=rachel.pk).update(ends_at=timezone.now(), successor=sarah)
    ending.check()
    Voice.objects.filter(pk=rachel.pk).update(ends_at=None)
    assert Voice.objects.default() == sarah


def test_patients_keep_an_ended_voice_if_there_is_no_other(member: Callable[..., Member]):
    rachel = voice("Rachel", ends_at=timezone.now() - timedelta(days=1))
    patient = patient_with(member, "Bob", rachel)
    ending.check()
    assert Patient.objects.get(pk=patient.pk).voice == rachel
    ((day, detail),) = details().items()
    assert detail == f"On {day}: Rachel (default voice), then no other voice. Patients who hear one of these voices: 1."


def test_patients_get_their_own_backup_voice_if_an_ended_voice_has_no_successor(member: Callable[..., Member]):
    voice("Rachel")
    clone = voice("Clone", category="cloned", ends_at=timezone.now())
    ending_voice = voice("Old", ends_at=timezone.now() - timedelta(days=1), successor=clone)
    patient = patient_with(member, "Bob", ending_voice)
    Patient.objects.filter(pk=patient.pk).update(backup_voice=(backup := voice("Backup")))
    ending.check()
    assert Patient.objects.get(pk=patient.pk).voice == backup


def test_patients_who_hear_only_their_own_voice_keep_an_ended_voice(member: Callable[..., Member]):
    voice("Rachel")
    old = voice("Old", ends_at=timezone.now() - timedelta(days=1))
    patient = patient_with(member, "Bob", old)
    Patient.objects.filter(pk=patient.pk).update(backup_policy="own_voice_only")
    ending.check()
    assert Patient.objects.get(pk=patient.pk).voice == old
    ((_, detail),) = details().items()  # open until an administrator chooses another voice
    assert "Patients who hear one of these voices: 1." in detail


def test_the_end_of_a_backup_voice_is_reported(member: Callable[..., Member]):
    voice("Rachel")
    patient = patient_with(member, "Bob", None)
    Patient.objects.filter(pk=patient.pk).update(backup_voice=voice("Backup", ends_at=SOON))
    ending.check()
    ((_, detail),) = details().items()
    assert detail.startswith(f"On {SOON:%Y-%m-%d}: Backup, then Rachel.")


def test_the_patients_of_voices_are_counted_as_the_next_conversations_choose_them(member: Callable[..., Member]):
    """Every combination of voice, backup voice, policy and language is counted like `DefaultVoices.for_patient`."""
    default, german = voice("Default"), voice("German", languages="de")
    DefaultVoice.objects.create(voice=default)
    DefaultVoice.objects.create(voice=german, language="de")
    now = timezone.now()
    voices = [
        None,
        voice("usable"),
        voice("refused", refusal=Voice.Refusal.REFUSED),
        voice("gone", state=Voice.State.GONE),
        voice("withdrawn", state=Voice.State.WITHDRAWN, source=Voice.Source.CLONED),
        voice("ended", ends_at=now, successor=voice("successor")),
        voice("ended without successor", ends_at=now),
        voice("ends later", ends_at=now + timedelta(days=1)),
    ]
    combinations = product(voices, voices[:4], Patient.BackupPolicy.values, ("en", "de-AT"))
    Patient.objects.bulk_create(
        Patient(name="P", companion_name="C", voice=own, backup_voice=backup, backup_policy=policy, language=language)
        for own, backup, policy, language in combinations
    )
    member("Archived")
    Patient.objects.filter(name="Archived").update(archived_at=now)
    expected = Counter(ending.patients_by_voice().values())
    everything = list(Voice.objects.all())
    assert ending.count_patients(everything) == Counter({one: number for one, number in expected.items() if one})
    assert ending.count_patients([german]) == {german: expected[german]}


def test_counting_reads_no_row_of_a_patient(django_assert_num_queries: Any):
    """Neither the queries nor the rows grow with the patients."""
    default, own = voice("Default"), voice("own")
    DefaultVoice.objects.create(voice=default)
    for _ in range(2):
        Patient.objects.bulk_create(Patient(name="P", companion_name="C", voice=one) for one in (own, None) * 50)
        with django_assert_num_queries(3) as captured:
            ending.count_patients([default, own])
        with connection.cursor() as cursor:
            for query in captured:
                cursor.execute(query["sql"])
                assert len(cursor.fetchall()) <= 2
    assert ending.count_patients([default, own]) == {default: 100, own: 100}
