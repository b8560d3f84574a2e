"""Which clips are required. The first part tests pure functions with unsaved rows."""

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.conftest import OTHER_VOICE, Member
from tts.cache import planning
from tts.cache.planning import Audience, Listener, required_clips
from tts.conversations.lifecycle import resolve_voice
from tts.models import Phrase
from tts.text.lexicon import Lexicon
from voicecare.patients.models import Device, Patient, Voice

MODEL = "eleven_flash_v2_5"
RACHEL = Voice(provider_id="rachel", name="Rachel")
GREETING = Phrase(pk=1, kind="greeting", language="en", text="Hello {patient_name}, this is {ai_name}.")
HOLDING = Phrase(pk=2, kind="holding", language="en", text="One moment, please.")
COMMON = Phrase(pk=3, kind="common", language="en", text="I see.")
GERMAN = Phrase(pk=4, kind="common", language="de", text="Ich verstehe.")
PHRASES = [COMMON, GERMAN, HOLDING, GREETING]


def audience(*names: str, voice: Voice = RACHEL, language: str = "en", rate: float = 1.0) -> Audience:
    listeners = [Listener(uuid.uuid5(uuid.NAMESPACE_OID, name), name, "Clara") for name in names or ("Alice",)]
    return Audience(voice, language, rate, "mp3_44100_128", Lexicon(), listeners)


def texts(*audiences: Audience) -> list[str]:
    return [spec.text for spec in required_clips(audiences, PHRASES, MODEL)]


def test_a_patient_needs_greeting_hold_message_and_common_phrases_in_this_order():
    assert texts(audience("Alice")) == ["Hello Alice, this is Clara.", "One moment, please.", "I see."]


def test_only_phrases_of_the_language_are_needed():
    assert texts(audience(language="de")) == ["Ich verstehe."]


def test_a_text_without_letter_or_digit_needs_no_clip():
    signs = [Phrase(pk=5, kind="common", language="en", text="***"), Phrase(pk=6, kind="holding", text="... 🙂")]
    name = Phrase(pk=7, kind="greeting", language="en", text="{patient_name}!")
    specs = required_clips([audience("Alice", "🙂")], [*signs, name], MODEL)
    assert [spec.text for spec in specs] == ["Alice!"]


def test_without_phrases_no_clips_are_needed():
    assert texts(audience(language="fr")) == []


def test_two_patients_share_phrases_but_not_greetings():
    assert texts(audience("Alice", "Bob")) == [
        "Hello Alice, this is Clara.",
        "Hello Bob, this is Clara.",
        "One moment, please.",
        "I see.",
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"voice": Voice(provider_id="rachel", name="Rachel", revision=2)},
        {"voice": Voice(provider_id="sarah", name="Sarah")},
        {"rate": 0.9},
    ],
    ids=["revision", "voice", "rate"],
)
def test_each_difference_in_audio_needs_its_own_clip(other: dict[str, object]):
    assert texts(audience("Alice"), audience("Bob", **other)).count("I see.") == 2


def test_only_the_spec_of_a_greeting_has_a_patient():
    alice = audience("Alice")
    owners = {spec.text: spec.patient_id for spec in required_clips([alice], PHRASES, MODEL)}
    assert owners == {
        "Hello Alice, this is Clara.": alice.listeners[0].patient_id,
        "One moment, please.": None,
        "I see.": None,
    }


# From the database


@pytest.mark.parametrize("voice", [None, OTHER_VOICE])
@pytest.mark.parametrize("state", Voice.State)
def test_the_voice_is_that_of_the_next_conversation(voice: str | None, state: str, member: Callable[..., Member]):
    patient = member("Alice", voice=voice).patient
    Voice.objects.filter(provider_id=OTHER_VOICE).update(state=state)
    patient.refresh_from_db()
    (found,) = planning.load_audiences(planning.active_patients())
    assert (found.listeners[0].patient_id, found.voice) == (patient.pk, resolve_voice(patient)[0])


@pytest.mark.parametrize(("days", "names"), [(2, ["Old", "New"]), (4, ["Old"]), (None, ["Old"])])
def test_clips_of_the_successor_are_needed_some_days_before_a_voice_ends(
    days: int | None, names: list[str], alice: Member
):
    ends_at = None if days is None else timezone.now() + timedelta(days=days)
    old = Voice.objects.create(
        provider_id="old", name="Old", ends_at=ends_at, successor=Voice.objects.create(provider_id="new", name="New")
    )
    Patient.objects.filter(pk=alice.patient.pk).update(voice=old)
    assert [audience.voice.name for audience in planning.load_audiences(planning.active_patients())] == names


@pytest.mark.parametrize(
    ("policy", "names"), [("switch", ["Own", "Next", "Backup"]), ("own_voice_only", ["Own"])], ids=str
)
def test_clips_of_successor_and_backup_voice_are_generated_unless_only_the_own_voice_speaks(
    policy: str, names: list[str], alice: Member
):
    backup, following = (Voice.objects.create(provider_id=name, name=name) for name in ("Backup", "Next"))
    ends_at = timezone.now() + timedelta(days=1)
    own = Voice.objects.create(provider_id="o", name="Own", ends_at=ends_at, successor=following)
    patient = Patient.objects.filter(pk=alice.patient.pk)
    patient.update(voice=own, backup_voice=backup, backup_policy=policy)
    assert [audience.voice.name for audience in planning.load_audiences(planning.active_patients())] == names


def test_no_clip_is_generated_in_a_voice_that_is_gone(alice: Member):
    Voice.objects.filter(pk=alice.patient.voice_id).update(state="gone")
    Patient.objects.filter(pk=alice.patient.pk).update(backup_policy="own_voice_only")
    assert planning.load_audiences(planning.active_patients()) == []


def test_a_patient_without_any_voice_is_no_audience(bob: Member):
    Voice.objects.update(state="gone")
    assert planning.load_audiences(planning.active_patients()) == []


def formats() -> list[str]:
    return [audience.format for audience in planning.load_audiences(planning.active_patients())]


def test_clips_are_needed_in_each_format_of_the_devices_in_use(alice: Member):
    assert formats() == ["mp3_44100_128"]
    Device.objects.filter(pk=alice.device.pk).update(format="ulaw_8000")
    for name, format_, revoked_at in (
        ("second", "pcm_16000", None),
        ("same", "pcm_16000", None),
        ("old", "pcm_24000", "2026-01-01T00:00Z"),
    ):
        device, _ = Device.objects.issue(alice.patient, name)
        Device.objects.filter(pk=device.pk).update(format=format_, revoked_at=revoked_at)
    assert formats() == ["pcm_16000", "ulaw_8000"]


@pytest.mark.parametrize("language", ["de", "de-AT", "DE"])
def test_patients_who_need_the_same_sound_are_one_audience(language: str, member: Callable[..., Member]):
    first = member("Alice Archer", language=language).patient
    second = member("Bob Baker", language="de").patient
    Patient.objects.filter(pk=second.pk).update(preferred_name="Bob", companion_name="Max")
    member("Carol", language="de", speech_rate="0.9")
    together, alone = sorted(
        planning.load_audiences(planning.active_patients()), key=lambda found: -len(found.listeners)
    )
    assert (together.language, together.speech_rate, alone.speech_rate) == ("de", 1.0, 0.9)
    assert set(together.listeners) == {(first.pk, "Alice Archer", first.companion_name), (second.pk, "Bob", "Max")}


@pytest.mark.parametrize("gone", ["archived_at", "erased_at"])
def test_archived_and_erased_patients_are_not_active(gone: str, alice: Member):
    Patient.objects.filter(pk=alice.patient.pk).update(**{gone: "2026-01-01T00:00Z"})
    assert planning.load_audiences(planning.active_patients()) == []


def test_many_patients_take_as_many_queries_as_one(member: Callable[..., Member], django_assert_num_queries):
    for number in range(5):
        member(f"Patient {number}", voice=OTHER_VOICE)
    with django_assert_num_queries(5):
        (found,) = planning.load_audiences(planning.active_patients())
    assert len(found.listeners) == 5
