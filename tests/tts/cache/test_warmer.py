"""Warming makes one request for each clip that is missing or expires soon, and no others."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.db.models import F, QuerySet
from django.utils import timezone

from tests.conftest import DEFAULT_VOICE, OTHER_VOICE, Member
from tests.sandbox import SandboxProcess
from tests.sound import decode
from tts import tasks
from tts.cache import warmer
from tts.cache.planning import active_patients, create_phrase_cache, load_audiences, missing_clips
from tts.cache.warmer import Lease, OnError, on_error
from tts.models import Clip, Phrase
from usage.models import Incident, ProviderState, UsageEvent
from voicecare.audio.formats import FORMATS
from voicecare.audio.framing import FramePadder
from voicecare.patients.models import Device, Patient, Voice
from voicecare.providers import errors

pytestmark = pytest.mark.django_db(transaction=True)

GREETING = "Hello Alice Archer, this is Clara."


@pytest.fixture(autouse=True)
def provider(settings: Any, sandbox: SandboxProcess, tmp_path: Path) -> None:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    settings.PHRASE_STORE = "file"
    settings.STORAGES = {
        **settings.STORAGES,
        "phrases": {"BACKEND": "tts.cache.stores.AtomicFileStorage", "OPTIONS": {"location": tmp_path}},
    }
    sandbox.settings(first_byte_ms=0)


@pytest.fixture
def phrases() -> list[Phrase]:
    """One phrase of each kind."""
    return [
        Phrase.objects.create(kind="greeting", text="Hello {patient_name}, this is {ai_name}."),
        Phrase.objects.create(kind="holding", text="One moment, please."),
        Phrase.objects.create(text="I see."),
    ]


def requested_texts(sandbox: SandboxProcess) -> list[str]:
    return [request["text"] for request in sandbox.requests()]


def expire_in(hours: float = 12, clips: QuerySet[Clip] | None = None, **fields: object) -> None:
    """Lets these clips, or all, expire in this many hours."""
    (Clip.objects.all() if clips is None else clips).update(
        expires_at=timezone.now() + timedelta(hours=hours), **fields
    )


def pass_time(time: timedelta, clips: QuerySet[Clip] | None = None) -> None:
    """Makes the rows of these clips, or all, as old as they are after this time."""
    (Clip.objects.all() if clips is None else clips).update(
        created_at=F("created_at") - time, expires_at=F("expires_at") - time
    )


def cached_audio(clip: Clip) -> bytes | None:
    return asyncio.run(create_phrase_cache().get(clip.digest))


# Generated clips


def test_warming_a_patient_generates_greeting_and_phrases_in_their_voice(alice: Member, phrases, sandbox):
    tasks.warm_patient(str(alice.patient.pk))
    assert requested_texts(sandbox) == [GREETING, "One moment, please.", "I see."]
    assert {request["voice_id"] for request in sandbox.requests()} == {OTHER_VOICE}
    clips = {clip.characters: clip for clip in Clip.objects.all()}
    greeting = clips[len(GREETING)]
    assert (greeting.patient, greeting.phrase, greeting.voice) == (alice.patient, None, alice.patient.voice)
    assert [clips[len(phrase.text)].phrase for phrase in phrases[1:]] == phrases[1:]
    assert all(decode(cached_audio(clip), "mp3_44100_128").seconds > 0.3 for clip in clips.values())


def test_each_request_is_in_the_ledger_without_a_conversation(alice: Member, phrases, sandbox):
    tasks.warm_patient(str(alice.patient.pk))
    events = UsageEvent.objects.all()
    assert {(event.kind, event.outcome, event.conversation) for event in events} == {("warm", "completed", None)}
    assert {(event.characters, event.patient) for event in events} == {
        (len(GREETING), alice.patient.pk),
        (len("One moment, please."), None),
        (len("I see."), None),
    }
    assert sum(event.credits for event in events) == sandbox.account()["credits"]
    assert {event.request_id for event in events} == {request["request_id"] for request in sandbox.requests()}


def test_cached_clips_are_not_requested_again(alice: Member, phrases, sandbox):
    tasks.warm_patient(str(alice.patient.pk))
    tasks.warm_patient(str(alice.patient.pk))
    tasks.warm_due()
    assert len(requested_texts(sandbox)) == 3


def test_two_patients_share_the_phrases_of_one_voice(member: Callable[..., Member], phrases, sandbox):
    member("Bob"), member("Carol")
    tasks.warm_due()
    assert sorted(requested_texts(sandbox)) == [
        "Hello Bob, this is Clara.",
        "Hello Carol, this is Clara.",
        "I see.",
        "One moment, please.",
    ]


def test_warming_a_voice_covers_the_patients_who_use_it(alice: Member, bob: Member, phrases, sandbox):
    tasks.warm_voice(str(alice.patient.voice.pk))
    assert {request["voice_id"] for request in sandbox.requests()} == {OTHER_VOICE}
    tasks.warm_voice(str(Voice.objects.default().pk))
    assert "Hello Bob Baker, this is Clara." in requested_texts(sandbox)


def test_warming_a_phrase_covers_all_patients_of_its_language(alice: Member, bob: Member, phrases, sandbox):
    tasks.warm_phrase(str(phrases[2].pk))
    assert requested_texts(sandbox) == ["I see."] * 2
    assert {request["voice_id"] for request in sandbox.requests()} == {OTHER_VOICE, DEFAULT_VOICE}


@pytest.mark.parametrize("change", [{"companion_name": "Ann"}, {"speech_rate": "0.9"}, {"preferred_name": "Al"}])
def test_a_changed_name_generates_the_greeting_again(change: dict[str, str], alice: Member, phrases, sandbox):
    tasks.warm_patient(str(alice.patient.pk))
    Patient.objects.filter(pk=alice.patient.pk).update(**change)
    before = len(requested_texts(sandbox))
    tasks.warm_patient(str(alice.patient.pk))
    again = requested_texts(sandbox)[before:]
    assert len(again) == (3 if "speech_rate" in change else 1)
    assert again[0].startswith("Hello A")


def test_a_long_greeting_is_requested_in_segments_and_stored_as_one_clip(alice: Member, sandbox):
    Phrase.objects.create(kind="greeting", text="Hello {patient_name}. " + "It is good to hear you again today. " * 7)
    Patient.objects.update(name="Alice " * 16)
    tasks.warm_patient(str(alice.patient.pk))
    assert len(requested_texts(sandbox)) > 1
    clip = Clip.objects.get()
    assert (
        clip.characters
        == sum(map(len, requested_texts(sandbox)))
        == sum(e.characters for e in UsageEvent.objects.all())
    )
    assert UsageEvent.objects.values("source").distinct().count() == 1
    assert decode(cached_audio(clip), "mp3_44100_128").seconds > 10


# Renewal


def test_clips_that_expire_within_a_day_are_generated_again(alice: Member, phrases, sandbox):
    tasks.warm_patient(str(alice.patient.pk))
    expire_in()
    tasks.warm_due()
    assert len(requested_texts(sandbox)) == 6
    assert not Clip.objects.filter(expires_at__lt=timezone.now() + timedelta(days=6)).exists()


@pytest.mark.parametrize(("played", "times"), [(True, 2), (False, 1)])
def test_an_unplanned_clip_is_generated_again_if_it_was_played(played: bool, times: int, alice, phrases, sandbox):
    """For example in a format that the device used only once."""
    tasks.warm_phrase(str(phrases[2].pk))
    Patient.objects.update(speech_rate="0.8")
    expire_in(created_at=timezone.now() - timedelta(days=6), used_at=timezone.now() if played else None)
    tasks.warm_due()
    assert requested_texts(sandbox).count("I see.") == times + 1  # and once at the new speech rate


@pytest.mark.parametrize("gone", ["archived_at", "erased_at"])
def test_the_greeting_of_an_archived_or_erased_patient_is_not_generated_again(
    gone: str, alice: Member, phrases, sandbox
):
    tasks.warm_patient(str(alice.patient.pk))
    Patient.objects.update(**{gone: timezone.now()})
    expire_in(used_at=timezone.now())
    tasks.warm_due()
    assert requested_texts(sandbox).count(GREETING) == 1


# Errors


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (errors.TextRejected(), OnError.SKIP_CLIP),
        (errors.VoiceUnavailable(), OnError.SKIP_VOICE),
        (errors.QuotaExceeded(), OnError.STOP),
        (errors.AuthorizationError(), OnError.STOP),
        (errors.BadRequest(), OnError.STOP),
        (errors.RateLimited(), OnError.STOP),
        (errors.ServerError(), OnError.STOP),
        (errors.Unreachable(), OnError.STOP),
        (errors.Stalled(), OnError.STOP),
        (errors.AudioTooShort(), OnError.SKIP_CLIP),
        (errors.NotAudio(), OnError.STOP),
    ],
)
def test_the_error_decides_what_is_skipped(error: errors.ProviderError, verdict: OnError):
    assert on_error(error) is verdict


@pytest.mark.parametrize("state", [{"quota": "spent"}, {"circuit": "open"}])
def test_no_request_is_made_while_the_quota_is_exhausted_or_the_circuit_open(state, alice: Member, phrases, sandbox):
    ProviderState.objects.create(**state)
    tasks.warm_due()
    assert (requested_texts(sandbox), Clip.objects.count()) == ([], 0)


@pytest.mark.parametrize(
    ("fault", "incident"),
    [
        ({"kind": "error", "preset": "quota_exceeded"}, "quota"),
        ({"kind": "error", "preset": "invalid_api_key"}, "access"),
        ({"kind": "error", "preset": "internal_error"}, None),
        ({"kind": "error", "preset": "system_busy"}, None),
        ({"kind": "cut", "after_bytes": 2000}, None),
        ({"kind": "empty"}, None),
    ],
)
def test_an_error_ends_the_round_and_the_next_round_continues(fault, incident, alice: Member, phrases, sandbox):
    sandbox.fault(**fault)
    tasks.warm_due()
    assert len(requested_texts(sandbox)) == 1
    assert not Clip.objects.filter(size__gt=0).exists()
    assert list(Incident.objects.values_list("kind", flat=True)) == ([incident] if incident else [])
    assert UsageEvent.objects.get().characters == sandbox.account()["characters"]
    sandbox.clear_faults()
    ProviderState.objects.all().delete()
    tasks.warm_due()
    assert Clip.objects.filter(size__gt=0).count() == 3


@pytest.mark.parametrize("fault", [{"kind": "error", "preset": "internal_error"}, {"kind": "empty"}])
def test_a_text_that_always_fails_does_not_keep_back_the_others(fault, alice: Member, phrases, sandbox):
    sandbox.fault(**fault, match={"text": "^Hello"})  # the greeting, which comes first
    for _ in range(3):
        tasks.warm_due()
    assert requested_texts(sandbox) == [GREETING, "One moment, please.", "I see.", GREETING, GREETING]
    made = Clip.objects.filter(size__gt=0).values_list("characters", flat=True)
    assert sorted(made) == [len("I see."), len("One moment, please.")]
    assert not Incident.objects.exists()


def test_audio_that_is_too_short_for_its_text_is_not_stored(alice: Member, phrases, sandbox):
    sandbox.fault(kind="cut_clean", after_bytes=418, match={"text": "moment"})
    tasks.warm_due()
    made = Clip.objects.filter(size__gt=0).values_list("characters", flat=True)
    assert sorted(made) == [len("I see."), len(GREETING)]
    assert not Incident.objects.exists()


@pytest.fixture(params=[{"kind": "error", "preset": "invalid_text"}, {"kind": "cut_clean", "after_bytes": 418}])
def refused(request: pytest.FixtureRequest, sandbox: SandboxProcess) -> None:
    """The provider rejects the hold message, or sends too little audio for it and bills it."""
    sandbox.fault(**request.param, match={"text": "moment"})


def test_a_refused_text_is_requested_again_after_two_days(alice: Member, phrases, sandbox, refused: None):
    for _ in range(3):
        tasks.warm_due()
        tasks.prune_phrases()
    assert requested_texts(sandbox).count("One moment, please.") == 1
    pass_time(warmer.RETRY_REFUSED_AFTER + timedelta(seconds=1), Clip.objects.filter(size=0))
    tasks.warm_due()
    assert requested_texts(sandbox).count("One moment, please.") == 2


def test_a_refused_renewal_is_requested_again_after_two_days(alice: Member, phrases, sandbox):
    tasks.warm_due()
    expire_in()
    sandbox.fault(kind="cut_clean", after_bytes=418, match={"text": "moment"})
    for _ in range(3):
        tasks.warm_due()
    assert requested_texts(sandbox).count("One moment, please.") == 2
    (clip,) = Clip.objects.filter(phrase=phrases[1])
    assert cached_audio(clip)  # the earlier audio is played until it expires
    pass_time(warmer.RETRY_REFUSED_AFTER + timedelta(seconds=1), Clip.objects.filter(size=0))
    sandbox.clear_faults()
    tasks.warm_due()
    assert Clip.objects.get(phrase=phrases[1]).expires_at > timezone.now() + timedelta(days=6)


def test_clips_that_failed_come_after_those_that_expire(alice: Member, phrases, sandbox):
    """The played clip is of an earlier speech rate, so only its use keeps it."""
    tasks.warm_phrase(str(phrases[2].pk))
    expire_in(created_at=timezone.now() - timedelta(days=6), used_at=timezone.now())
    Patient.objects.update(speech_rate="0.8")
    sandbox.fault(kind="error", preset="internal_error", match={"text": "^(Hello|One)"})
    for _ in range(4):
        tasks.warm_due()
    assert requested_texts(sandbox) == [
        *["I see."],
        *[GREETING],
        *["One moment, please."],
        *["I see.", "I see.", GREETING],  # at both speech rates, then the clip that failed first
        *["One moment, please."],
    ]


def test_a_renewal_that_always_fails_does_not_keep_back_those_that_expire_earlier(alice: Member, phrases, sandbox):
    tasks.warm_due()
    expire_in()
    expire_in(11, clips=Clip.objects.filter(phrase=phrases[2]))
    sandbox.fault(kind="error", preset="internal_error", match={"text": "^Hello"})
    tasks.warm_due()
    assert Clip.objects.get(phrase=phrases[2]).expires_at > timezone.now() + timedelta(days=6)


def test_an_expired_clip_whose_renewal_fails_comes_last(alice: Member, phrases, sandbox):
    tasks.warm_due()
    expire_in(-1)
    sandbox.fault(kind="error", preset="internal_error", match={"text": "^Hello"})
    for _ in range(2):
        tasks.warm_due()
        tasks.prune_phrases()
    assert requested_texts(sandbox)[3:] == [GREETING, "One moment, please.", "I see.", GREETING]


def test_the_failure_of_a_clip_is_remembered_for_two_days(alice: Member, phrases, sandbox):
    sandbox.fault(kind="error", preset="internal_error")
    tasks.warm_due()
    pass_time(timedelta(hours=47))
    tasks.prune_phrases()
    assert Clip.objects.count() == 1
    pass_time(timedelta(hours=2))
    tasks.prune_phrases()
    assert Clip.objects.count() == 0


@pytest.mark.parametrize(("format_name", "after_bytes"), [("pcm_16000", 15_001), ("mp3_44100_128", 15_001)])
def test_a_clip_is_stored_with_its_last_frame_whole(format_name: str, after_bytes: int, alice, phrases, sandbox):
    Device.objects.update(format=format_name)
    sandbox.fault(kind="cut_clean", after_bytes=after_bytes)
    tasks.warm_phrase(str(phrases[1].pk))
    audio = cached_audio(Clip.objects.get())
    assert len(audio) > after_bytes
    padder = FramePadder(FORMATS[format_name])
    padder.feed(audio)
    assert padder.padding() == b""


def test_phrases_without_letter_or_digit_are_not_requested(alice: Member, sandbox):
    Phrase.objects.create(text="***")
    tasks.warm_due()
    assert requested_texts(sandbox) == []


def test_a_rejected_text_skips_its_clip_and_an_unavailable_voice_its_clips(alice, bob, phrases, sandbox):
    sandbox.fault(kind="error", preset="invalid_text", match={"text": "moment"})
    sandbox.fault(kind="error", preset="voice_not_found", match={"voice_id": OTHER_VOICE})
    tasks.warm_due()
    made = Clip.objects.filter(size__gt=0)
    assert {clip.characters for clip in made} == {len("I see."), len("Hello Bob Baker, this is Clara.")}
    assert [request["voice_id"] for request in sandbox.requests()].count(OTHER_VOICE) == 1
    assert Incident.objects.get().kind == "voice"


def test_a_failed_renewal_restores_the_row(alice: Member, phrases, sandbox):
    tasks.warm_patient(str(alice.patient.pk))
    expire_in()
    before = set(Clip.objects.values_list("digest", "expires_at", "created_at"))
    sandbox.fault(kind="error", preset="internal_error")
    tasks.warm_due()
    assert set(Clip.objects.values_list("digest", "expires_at", "created_at")) == before
    assert all(map(cached_audio, Clip.objects.all()))


def test_a_failing_store_costs_one_request(alice, phrases, sandbox, settings, tmp_path):
    broken = tmp_path / "a file"
    broken.touch()
    settings.STORAGES = {
        **settings.STORAGES,
        "phrases": {**settings.STORAGES["phrases"], "OPTIONS": {"location": broken}},
    }
    tasks.warm_due()
    assert len(requested_texts(sandbox)) == 1


# Leases


def test_a_clip_has_one_lease_until_it_expires(alice: Member, phrases):
    ((digest, spec), *_) = missing_clips(load_audiences(active_patients()), phrases, create_phrase_cache()).items()
    first = Lease.acquire(digest, spec)
    assert first is not None
    assert Lease.acquire(digest, spec) is None
    Clip.objects.update(expires_at=F("expires_at") - warmer.LEASE_TIME - timedelta(seconds=1))
    assert Lease.acquire(digest, spec) is not None


def test_two_concurrent_workers_make_one_request_per_clip(alice: Member, phrases, sandbox):
    sandbox.settings(first_byte_ms=100)

    def work() -> None:
        try:
            tasks.warm_due()
        finally:
            connections.close_all()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(requested_texts(sandbox)) == sorted([GREETING, "One moment, please.", "I see."])
    assert Clip.objects.filter(size__gt=0).count() == 3


def test_a_round_ends_at_its_time_limit_and_reports_remaining_clips(alice: Member, phrases, sandbox, monkeypatch):
    monkeypatch.setattr(warmer, "ROUND_LIMIT_S", 0.0)
    needed = missing_clips(load_audiences(active_patients()), phrases, create_phrase_cache())
    assert warmer.warm(needed, create_phrase_cache()) is True
    monkeypatch.setattr(warmer, "ROUND_LIMIT_S", 10.0)
    assert warmer.warm(needed, create_phrase_cache()) is False
