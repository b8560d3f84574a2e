"""Which entries a conversation uses, and that its texts are said with them from the first byte on."""

import pytest
from django.db import IntegrityError
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tests.conftest import Member
from tts.conversations import lifecycle, retention
from tts.conversations.lexicon import LexiconBook, load_lexicon
from tts.models import LexiconEntry, Phrase
from voicecare.patients.models import Clinic, Patient

pytestmark = pytest.mark.django_db
add = LexiconEntry.objects.create


def say(text: str, patient: Patient | None, language: str = "en") -> str:
    loaded = "".join(part for part, _ in load_lexicon(language, patient).parts(text))
    if patient is not None:
        assert "".join(part for part, _ in LexiconBook().lexicon(language, patient).parts(text)) == loaded
    return loaded


def test_patient_over_clinic_over_everybody(alice: Member, bob: Member):
    north, south = Clinic.objects.create(name="North"), Clinic.objects.create(name="South")
    alice.patient.clinic = bob.patient.clinic = north
    add(written="Ann", spoken="everybody")
    add(written="Ann", spoken="south", clinic=south)
    assert say("Ann", alice.patient) == "everybody"
    add(written="Ann", spoken="north", clinic=north)
    assert say("Ann", alice.patient) == "north"
    add(written="Ann", spoken="alice", patient=alice.patient)
    assert (say("Ann", alice.patient), say("Ann", bob.patient), say("Ann", None)) == ("alice", "north", "everybody")
    alice.patient.clinic = None
    assert (say("Ann", alice.patient), say("ann", alice.patient)) == ("alice", "alice")


def test_an_entry_of_the_language_comes_before_one_of_all(alice: Member):
    add(written="Ann", spoken="all")
    add(written="Ann", spoken="German", language="de")
    assert [say("Ann", alice.patient, language) for language in ("de", "en", "fr")] == ["German", "all", "all"]


def test_a_changed_entry_is_heard_in_the_next_conversation(alice: Member):
    entry = add(written="Ann", spoken="one")
    first = lifecycle.start(alice.device.pk, None).context
    for spoken in ("two", "three"):
        entry.spoken = spoken
        entry.save()
        assert say("Ann", alice.patient) == spoken
    entry.delete()
    assert say("Ann", alice.patient) == "Ann"
    assert first.pronunciation.plain("Ann has 2 pills") == "one has two pills"


def test_the_number_of_queries_does_not_grow(alice: Member, django_assert_num_queries: DjangoAssertNumQueries):
    LexiconEntry.objects.bulk_create(LexiconEntry(written=f"Drug{n}", spoken="drug") for n in range(300))
    load_lexicon("en", alice.patient)
    with django_assert_num_queries(2):
        load_lexicon("en", alice.patient)


def test_the_greeting_says_the_name_and_the_transcript_keeps_it(alice: Member):
    Phrase.objects.create(kind="greeting", text="Hello {patient_name}.")
    add(written="Alice Archer", spoken="Aleece Archer", patient=alice.patient)
    context = lifecycle.start(alice.device.pk, None).context
    assert context.greeting == "Hello Alice Archer."
    assert context.pronunciation.plain(context.greeting) == "Hello Aleece Archer."


def test_one_entry_for_a_word_in_each_scope(alice: Member):
    add(written="Ann", spoken="one")
    with pytest.raises(IntegrityError):
        add(written="Ann", spoken="two")


def test_an_entry_has_one_scope(alice: Member):
    with pytest.raises(IntegrityError):
        add(written="Ann", spoken="x", patient=alice.patient, clinic=Clinic.objects.create(name="North"))


def test_the_entries_of_an_erased_patient_are_deleted(alice: Member, bob: Member):
    add(written="Alice", spoken="Aleece", patient=alice.patient)
    kept = add(written="Bob", spoken="Bop", patient=bob.patient)
    Patient.objects.filter(pk=alice.patient.pk).update(erased_at=timezone.now())
    retention.erase_patients()
    assert list(LexiconEntry.objects.all()) == [kept]
