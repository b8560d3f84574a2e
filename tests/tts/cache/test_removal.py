"""Revoked and stale clips are deleted from the store and the database. Other clips stay."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from tests.conftest import OTHER_VOICE, Member
from tts import tasks
from tts.cache.phrase_cache import PhraseCache
from tts.cache.planning import active_patients, load_audiences, required_clips
from tts.cache.removal import delete_unplayable_clips
from tts.cache.stores import create_store
from tts.models import Clip, Phrase
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)

StoredDigests = Callable[[], set[str]]


@pytest.fixture
def cache(settings, tmp_path: Path) -> PhraseCache:
    settings.PHRASE_STORE = "file"
    settings.STORAGES = {
        **settings.STORAGES,
        "phrases": {"BACKEND": "tts.cache.stores.AtomicFileStorage", "OPTIONS": {"location": tmp_path}},
    }
    return PhraseCache(create_store(settings), settings.PHRASE_SECRET, settings.PHRASE_TTL_S)


@pytest.fixture
def stored_digests(cache: PhraseCache, alice: Member, bob: Member) -> StoredDigests:
    """Stores all clips that Alice and Bob need. Alice uses another voice, Bob the default voice."""
    phrases = [
        Phrase.objects.create(kind="greeting", text="Hello {patient_name}, this is {ai_name}."),
        Phrase.objects.create(text="I see."),
    ]
    for spec in required_clips(load_audiences(active_patients()), phrases, settings.ELEVENLABS_MODEL_ID):
        asyncio.run(_put(cache, spec))
    assert len(stored(cache)) == Clip.objects.count() == 4
    return lambda: stored(cache)


async def _put(cache: PhraseCache, spec) -> None:
    await cache.store(spec.speech_settings, spec.text, b"sound", spec.patient_id)


def stored(cache: PhraseCache) -> set[str]:
    return set(create_store(settings).keys())


def remaining_clips() -> list[tuple[str, str]]:
    """Returns patient or phrase, and the voice, of each remaining clip."""
    clips = Clip.objects.select_related("patient", "phrase", "voice").order_by("pk")
    return sorted((str(clip.patient or clip.phrase), clip.voice.provider_id[:4]) for clip in clips)


def test_valid_clips_are_not_deleted(stored_digests: StoredDigests, cache: PhraseCache):
    assert delete_unplayable_clips(cache) == 0
    assert len(stored_digests()) == 4


def test_the_greeting_of_an_erased_patient_is_deleted(stored_digests: StoredDigests, alice: Member):
    Patient.objects.filter(pk=alice.patient.pk).update(erased_at=timezone.now())
    tasks.remove_audio()
    assert remaining_clips() == [("Bob Baker", "21m0"), ("I see.", "21m0"), ("I see.", "EXAV")]
    assert stored_digests() == set(Clip.objects.values_list("digest", flat=True))


def test_clips_in_the_voice_of_an_erased_patients_relative_are_deleted(
    stored_digests: StoredDigests, alice: Member, bob: Member
):
    Voice.objects.filter(provider_id=OTHER_VOICE).update(source="cloned", patient=bob.patient)
    Patient.objects.filter(pk=bob.patient.pk).update(erased_at=timezone.now())
    tasks.remove_audio()
    assert remaining_clips() == [("I see.", "21m0")]
    assert len(stored_digests()) == 1


def test_clips_in_a_withdrawn_voice_are_deleted_and_those_in_a_missing_voice_stay(stored_digests: StoredDigests):
    Voice.objects.filter(provider_id=OTHER_VOICE).update(state=Voice.State.GONE)
    tasks.remove_audio()
    assert len(stored_digests()) == 4
    Voice.objects.filter(provider_id=OTHER_VOICE).update(state=Voice.State.WITHDRAWN)
    tasks.remove_audio()
    assert remaining_clips() == [("Bob Baker", "21m0"), ("I see.", "21m0")]
    assert len(stored_digests()) == 2


def test_clips_of_an_earlier_voice_revision_are_deleted(stored_digests: StoredDigests):
    Voice.objects.filter(provider_id=OTHER_VOICE).update(revision=2)
    tasks.remove_audio()
    assert remaining_clips() == [("Bob Baker", "21m0"), ("I see.", "21m0")]
    assert len(stored_digests()) == 2


def test_the_task_of_every_minute_removes_revoked_clips_and_leaves_stale_ones(
    stored_digests: StoredDigests, alice: Member, bob: Member
):
    Patient.objects.filter(pk=alice.patient.pk).update(erased_at=timezone.now())
    Patient.objects.filter(pk=bob.patient.pk).update(name="Bobby")
    Voice.objects.filter(provider_id=OTHER_VOICE).update(state=Voice.State.WITHDRAWN)
    tasks.remove_revoked_audio()
    assert remaining_clips() == [("Bobby", "21m0"), ("I see.", "21m0")]
    tasks.remove_audio()
    assert remaining_clips() == [("I see.", "21m0")]
    assert len(stored_digests()) == 1


@pytest.mark.parametrize("change", [{"name": "Alicia"}, {"preferred_name": "Al"}, {"companion_name": "Ann"}])
def test_a_greeting_with_outdated_names_is_deleted(
    stored_digests: StoredDigests, alice: Member, change: dict[str, str]
):
    Patient.objects.filter(pk=alice.patient.pk).update(**change)
    tasks.remove_audio()
    assert len(stored_digests()) == 3
    assert not Clip.objects.filter(patient=alice.patient).exists()


def test_clips_of_a_changed_or_deleted_phrase_are_deleted(stored_digests: StoredDigests):
    Phrase.objects.filter(kind="common").update(text="I understand.")
    tasks.remove_audio()
    assert len(stored_digests()) == 2
    Phrase.objects.all().delete()
    tasks.remove_audio()
    assert (stored_digests(), Clip.objects.count()) == (set(), 0)


def test_clips_at_an_earlier_speech_rate_stay(stored_digests: StoredDigests, alice: Member):
    """Other patients may use that rate, and the patient may use it again."""
    Patient.objects.filter(pk=alice.patient.pk).update(speech_rate="0.9")
    tasks.remove_audio()
    assert len(stored_digests()) == 4


def test_a_failed_deletion_is_retried_by_the_next_call(stored_digests: StoredDigests, alice: Member, tmp_path: Path):
    Patient.objects.filter(pk=alice.patient.pk).update(erased_at=timezone.now())
    digest = Clip.objects.get(patient=alice.patient).digest
    path = tmp_path / digest[:2] / digest
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    tasks.remove_audio()
    assert Clip.objects.filter(digest=digest).exists()
    (path / "in the way").rmdir()
    path.rmdir()
    path.write_bytes(b"there again")
    tasks.remove_audio()
    assert not path.exists()
    assert not Clip.objects.filter(digest=digest).exists()
