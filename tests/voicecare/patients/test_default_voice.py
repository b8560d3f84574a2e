"""Which voice is the default voice: the order of the choices, what is never chosen, and two choosers at once."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from tests.waiting import until
from voicecare.patients.models import DefaultVoice, DefaultVoices, Patient, Voice
from voicecare.patients.models.default_voice import choose_default

pytestmark = pytest.mark.django_db

SERVER, ADMINISTRATOR = DefaultVoice.ChosenBy.SERVER, DefaultVoice.ChosenBy.ADMINISTRATOR


@pytest.fixture(autouse=True)
def unset(settings: Settings) -> None:
    settings.DEFAULT_VOICE_ID = ""


def voice(name: str, **fields: Any) -> Voice:
    return Voice.objects.create(provider_id=f"id-{name}", name=name, **fields)


def choose(language: str, chosen: Voice, by: str = ADMINISTRATOR) -> None:
    DefaultVoice.objects.create(language=language, voice=chosen, chosen_by=by)


def in_days(days: float) -> datetime:
    return timezone.now() + timedelta(days=days)


def default(language: str = "") -> str | None:
    found = Voice.objects.default(language)
    return None if found is None else found.name


# Who decides


def test_the_environment_then_the_language_then_every_language_then_the_server(settings: Settings):
    for name in ("configured", "german", "every", "server"):
        voice(name)
    choose("", Voice.objects.get(name="server"), SERVER)
    assert [default(tag) for tag in ("de-AT", "en")] == ["server", "server"]
    choose("", Voice.objects.get(name="every"))
    assert [default(tag) for tag in ("de-AT", "en")] == ["every", "every"]
    choose("de", Voice.objects.get(name="german"))
    assert [default(tag) for tag in ("de-AT", "en")] == ["german", "every"]
    settings.DEFAULT_VOICE_ID = "id-configured"
    assert [default(tag) for tag in ("de-AT", "en")] == ["configured", "configured"]
    assert {found.name for found in DefaultVoices().all()} == {"configured"}


UNUSABLE: dict[str, dict[str, Any]] = {
    "gone": {"state": "gone"},
    "withdrawn": {"state": "withdrawn"},
    "refused": {"refusal": "refused"},
    "of another workspace": {"refusal": "missing"},
}


@pytest.mark.parametrize("problem", UNUSABLE.values(), ids=UNUSABLE)
def test_a_choice_holds_only_while_its_voice_can_be_used(problem: dict[str, Any], settings: Settings):
    choices = ["configured", "german", "every", "server", "another"]
    for name in choices:
        voice(name)
    settings.DEFAULT_VOICE_ID = "id-configured"
    choose("de", Voice.objects.get(name="german"))
    choose("", Voice.objects.get(name="every"))
    choose("", Voice.objects.get(name="server"), SERVER)
    found = []
    for _ in choices:
        found.append(default("de"))
        Voice.objects.filter(name=found[-1]).update(**problem)
    assert found == choices
    Voice.objects.filter(name="german").update(state="usable", refusal="")
    assert default("de") == "german"


def test_an_ended_voice_is_followed_by_its_successor():
    choose("", voice("old", ends_at=in_days(2), successor=voice("new")))
    voice("another")
    assert default() == "old"
    Voice.objects.filter(name="old").update(ends_at=timezone.now() + timedelta(minutes=59))
    assert default() == "new"
    Voice.objects.filter(name="new").update(state="gone")
    assert default() == "another"


def test_an_ended_voice_stays_if_there_is_no_other():
    choose("", voice("old", ends_at=in_days(-30)))
    assert default() == "old"


def test_refused_voices_are_tried_again_if_there_is_no_other(settings: Settings):
    settings.DEFAULT_VOICE_ID = "id-configured"
    voice("configured", refusal="refused")
    voice("another", refusal="refused")
    assert default() == "configured"


@pytest.mark.parametrize("state", ["gone", "withdrawn"])
def test_without_a_usable_voice_there_is_no_default(state: str, settings: Settings):
    assert default() is None
    choose("", voice("old", state=state))
    settings.DEFAULT_VOICE_ID = "id-old"
    assert default() is None
    assert DefaultVoices().all() == set()


# What the server chooses


def test_the_choice_is_written_down_and_stays():
    voice("bea")
    assert default() == "bea"
    row = DefaultVoice.objects.get()
    assert (row.language, row.chosen_by, row.voice.name) == ("", SERVER, "bea")
    voice("adam")
    assert default() == "bea"


def test_a_clone_is_never_the_default_voice(alice: Member, settings: Settings):
    Voice.objects.all().delete()
    clone = voice("clone", source="cloned", patient=alice.patient)
    voice("of somebody", category="cloned")
    choose("", clone)
    settings.DEFAULT_VOICE_ID = clone.provider_id
    assert default() is None
    assert DefaultVoice.objects.get().voice == clone


BETTER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the language fits": ({"languages": "fr de"}, {"languages": "en"}),
    "the language may fit": ({}, {"languages": "en"}),
    "does not end soon": ({"languages": "en"}, {"languages": "de", "ends_at": in_days(90)}),
    "ends later": ({"ends_at": in_days(90)}, {"ends_at": in_days(-1)}),
    "the normal price": ({"price_rate": 1.0}, {"price_rate": 2.5}),
    "not refused": ({"ends_at": in_days(90)}, {"refusal": "refused"}),
    "faster": ({"category": "generated"}, {"category": "professional"}),
}


@pytest.mark.parametrize(("better", "worse"), BETTER.values(), ids=BETTER)
def test_the_best_voice_is_chosen(better: dict[str, Any], worse: dict[str, Any], member: Callable[..., Member]):
    member("Greta", language="de-AT")
    Voice.objects.all().delete()
    voice("zoe", **better)
    voice("adam", **worse)
    assert default() == "zoe"


def test_the_next_voice_resembles_the_lost_one():
    choose("", voice("rachel", gender="female", accent="american"), SERVER)
    voice("adam", gender="male", accent="american")
    voice("lily", gender="female", accent="british")
    Voice.objects.filter(name="rachel").update(state="gone")
    assert default() == "lily"


def test_the_language_is_that_of_most_patients(member: Callable[..., Member]):
    for name, language in (("Anna", "en"), ("Bert", "fr"), ("Carl", "fr")):
        member(name, language=language)
    Voice.objects.all().delete()
    voice("english", languages="en")
    voice("french", languages="fr")
    assert default("en") == "french"
    Patient.objects.filter(language="fr").update(archived_at=timezone.now())
    DefaultVoice.objects.all().delete()
    assert default("en") == "english"


# A patient's own voice


def test_a_patients_own_voice_comes_before_the_default_voice():
    choose("", voice("default"))
    defaults = DefaultVoices()
    successor = voice("successor")
    cases = {
        "usable": {},
        "refused": {"refusal": "refused"},
        "gone": {"state": "gone"},
        "ends later": {"ends_at": in_days(1)},
        "ended": {"ends_at": in_days(-1)},
        "ended, with a successor": {"ends_at": in_days(-1), "successor": successor},
    }
    found = {name: defaults.for_patient(Patient(voice=voice(name, **fields))).name for name, fields in cases.items()}
    assert found == {
        "usable": "usable",
        "refused": "refused",
        "gone": "default",
        "ends later": "ends later",
        "ended": "default",
        "ended, with a successor": "successor",
    }


def test_an_ended_voice_of_a_patient_stays_if_there_is_no_other():
    ended = voice("ended", ends_at=in_days(-1))
    Voice.objects.filter(pk=ended.pk).update(category="cloned")
    assert DefaultVoices().for_patient(Patient(voice=ended)) == ended


def voices_of(patient: Patient) -> list[str | None]:
    """The names of the patient's voice, backup voice and reserve voice."""
    defaults = DefaultVoices()
    found = (defaults.for_patient(patient), defaults.backup_for(patient), defaults.reserve_for(patient))
    return [None if each is None else each.name for each in found]


def test_a_patients_own_backup_voice_comes_before_the_default_voice():
    choose("", voice("default"))
    successor = voice("successor")
    cases = {
        "usable": ({}, ["own", "usable", "default"]),
        "gone": ({"state": "gone"}, ["own", "default", "successor"]),
        "withdrawn": ({"state": "withdrawn"}, ["own", "default", "successor"]),
        "refused": ({"refusal": "refused"}, ["own", "default", "successor"]),
        "ended": ({"ends_at": in_days(-1), "successor": successor}, ["own", "successor", "default"]),
    }
    own = voice("own", category="cloned")
    for name, (fields, expected) in cases.items():
        assert voices_of(Patient(voice=own, backup_voice=voice(name, **fields))) == expected, name


def test_the_backup_voice_speaks_when_the_own_voice_is_lost():
    choose("", voice("default"))
    backup = voice("backup")
    for name, problem in {"gone": {"state": "gone"}, "ended": {"ends_at": in_days(-1)}}.items():
        own = voice(name, **problem)
        assert voices_of(Patient(voice=own, backup_voice=backup))[0] == "backup"
    assert voices_of(Patient(backup_voice=backup)) == ["default", "backup", "default"]


def test_a_backup_voice_that_is_the_default_voice_has_another_one_in_reserve():
    default = voice("default")
    choose("", default)
    voice("another")
    assert voices_of(Patient(voice=voice("own", category="cloned"), backup_voice=default))[1:] == ["default", "another"]


@pytest.mark.parametrize("successor", [None, "successor"])
def test_the_voice_in_reserve_is_the_next_default_voice(successor: str | None):
    """A patient must not hear a third voice between the refused default voice and the one that takes over."""
    voice("another")  # resembles the default voice as much as the next choice does, and comes before it by its name
    following = None if successor is None else voice(successor)
    german, every = voice("german", successor=following), voice("every")
    choose("de", german)
    choose("", every)
    reserve = DefaultVoices().reserve("de-AT")
    Voice.objects.filter(pk=german.pk).update(refusal="refused")
    assert reserve is not None
    assert (reserve.name, default("de-AT")) == (successor or "every", successor or "every")


@pytest.mark.parametrize(
    ("problem", "heard"),
    [
        ({}, "own"),
        ({"refusal": "refused"}, "own"),
        ({"ends_at": in_days(-1)}, "own"),
        ({"state": "gone"}, "own"),
        ({"state": "withdrawn"}, None),
        (None, None),
    ],
    ids=["usable", "refused", "ended", "gone", "withdrawn", "no voice"],
)
def test_a_patient_who_hears_only_their_own_voice_gets_no_other(problem: dict[str, Any] | None, heard: str | None):
    choose("", voice("default"))
    own = None if problem is None else voice("own", successor=voice("successor"), **problem)
    patient = Patient(voice=own, backup_voice=voice("backup"), backup_policy=Patient.BackupPolicy.OWN_VOICE_ONLY)
    assert voices_of(patient) == [heard, None, None]


# Two processes


def is_waiting_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("earlier", [False, True], ids=["first choice", "takeover"])
def test_two_processes_agree_on_one_voice(earlier: bool):
    """The second process chooses while the choice of the first one, another voice, is not committed yet."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    adam, bea = voice("adam"), voice("bea")
    if earlier:
        choose("", voice("old", state="gone"), SERVER)
    found: list[Voice | None] = []

    def choose_in_thread() -> None:
        try:
            found.append(choose_default())
        finally:
            connections.close_all()

    with transaction.atomic():
        Voice.objects.filter(pk=adam.pk).update(refusal="refused")  # only this process knows
        assert choose_default() == bea
        other = threading.Thread(target=choose_in_thread)
        other.start()
        until(is_waiting_for_a_lock)
    other.join(20)
    assert found == [bea]
    assert DefaultVoice.objects.get(chosen_by=SERVER).voice == bea
