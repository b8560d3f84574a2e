"""Starting, resuming and ending conversations."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.utils import timezone

from tests.conftest import DEFAULT_VOICE, OTHER_VOICE, Member
from tts.conversations import lifecycle
from tts.conversations.context import OpenConversation
from tts.conversations.lifecycle import UnknownConversation, render_greeting, resolve_voice
from tts.models import Conversation, Phrase, Utterance
from voicecare.core.batches import RowsFailed
from voicecare.patients.models import Device, Patient, Voice

pytestmark = pytest.mark.django_db


def row_of(opened: OpenConversation) -> Conversation:
    return Conversation.objects.get(pk=opened.context.conversation_id)


def start(member: Member, audio_format: str | None = None) -> OpenConversation:
    return lifecycle.start(member.device.id, audio_format)


def resume(member: Member, opened: OpenConversation) -> OpenConversation:
    return lifecycle.resume(member.device.id, opened.context.conversation_id)


def clone(patient: Patient, **fields: object) -> Voice:
    voice = Voice.objects.create(provider_id="clone", name="Ann", source="cloned", patient=patient, **fields)
    patient.voice = voice
    patient.save()
    return voice


def set_last_seen(opened: OpenConversation, minutes_ago: float) -> Conversation:
    """Sets the last contact, and the start one hour earlier."""
    at = timezone.now() - timedelta(minutes=minutes_ago)
    Conversation.objects.filter(pk=opened.context.conversation_id).update(
        seen_at=at, started_at=at - timedelta(hours=1)
    )
    return row_of(opened)


# Voice


def test_the_selected_voice_is_used(alice: Member):
    opened = start(alice)
    assert opened.context.speech_settings.voice.provider_id == OTHER_VOICE
    assert opened.context.voice_source == "selected"
    assert opened.context.backup_settings.voice.provider_id == DEFAULT_VOICE


def test_the_patients_voice_clone_is_used(alice: Member):
    voice = clone(alice.patient, revision=3)
    context = start(alice).context
    assert (context.speech_settings.voice.id, context.voice_source) == (voice.id, "cloned")
    assert (context.speech_settings.voice.name, context.speech_settings.voice.revision) == ("Ann", 3)


def test_without_a_selected_voice_the_default_voice_is_used(bob: Member):
    context = start(bob).context
    assert context.speech_settings == context.backup_settings
    assert (context.speech_settings.voice.provider_id, context.voice_source) == (DEFAULT_VOICE, "default")


@pytest.mark.parametrize("state", ["gone", "withdrawn"])
def test_a_missing_or_withdrawn_voice_is_replaced_by_the_default_voice(alice: Member, state: str):
    clone(alice.patient, state=state)
    voice, source = resolve_voice(alice.patient)
    assert (voice.provider_id, source) == (DEFAULT_VOICE, "default")


def test_the_default_voice_exists_before_the_voice_list_is_synchronised(bob: Member):
    Voice.objects.all().delete()
    start(bob)
    assert Voice.objects.get().provider_id == DEFAULT_VOICE


def test_a_conversation_keeps_its_voice(alice: Member, bob: Member):
    opened = start(alice)
    Patient.objects.filter(pk=alice.patient.pk).update(voice=None)
    again = resume(alice, opened)
    assert again.context.speech_settings.voice == opened.context.speech_settings.voice
    assert again.context.voice_source == "selected"


# Starting


def test_a_new_conversation_has_no_ids_and_no_characters(alice: Member):
    opened = start(alice)
    assert (opened.used_speech_ids, opened.characters) == (frozenset(), 0)
    row = row_of(opened)
    assert (row.patient, row.device, row.voice) == (alice.patient, alice.device, alice.patient.voice)
    assert (row.tts_characters_used, row.ended_at, row.initiated) == (0, None, "device")


@pytest.mark.parametrize(("asked", "used"), [(None, "mp3_44100_128"), ("ulaw_8000", "ulaw_8000")])
def test_the_requested_format_is_used_and_stored_on_the_device(alice: Member, asked: str | None, used: str):
    opened = start(alice, asked)
    assert (
        opened.context.speech_settings.format == opened.context.backup_settings.format == row_of(opened).format == used
    )
    assert Device.objects.get(pk=alice.device.pk).format == used


@pytest.mark.parametrize(("language", "spoken"), [("en", "en"), ("de-AT", "de"), ("FR", "fr")])
def test_speech_settings_have_the_patients_language_and_speed(bob: Member, language: str, spoken: str):
    Patient.objects.filter(pk=bob.patient.pk).update(language=language, speech_rate=Decimal("0.85"))
    speech_settings = start(bob).context.speech_settings
    assert (speech_settings.language, speech_settings.speed) == (spoken, 0.85)


def test_the_context_has_the_normalised_phrases_of_the_patients_language(bob: Member):
    Phrase.objects.create(text="  That’s   wonderful! ")
    Phrase.objects.create(text="Cafe\u0301?")
    Phrase.objects.create(text="Wunderbar!", language="de")
    Phrase.objects.create(text="Hello.", kind="greeting")
    assert start(bob).context.phrases == {"That's wonderful!", "Caf\u00e9?"}


def test_the_started_frame_matches_the_device_protocol(alice: Member):
    opened = start(alice, "pcm_16000")
    assert opened.context.started_frame() == {
        "type": "conversation.started",
        "conversation": str(opened.context.conversation_id),
        "companion": "Clara",
        "voice": {"id": str(alice.patient.voice_id), "name": alice.patient.voice.name, "source": "selected"},
        "format": "pcm_16000",
        "initiated": "device",
    }


# Greeting


@pytest.mark.parametrize(
    ("fields", "greeting"),
    [
        ({}, "Hello Bob Baker, this is Clara. It is good to hear you."),
        ({"preferred_name": "Bobby"}, "Hello Bobby, this is Clara. It is good to hear you."),
        ({"companion_name": "Åsa"}, "Hello Bob Baker, this is Åsa. It is good to hear you."),
    ],
)
def test_the_greeting_names_the_patient_and_the_companion(phrases: None, bob: Member, fields: dict, greeting: str):
    Patient.objects.filter(pk=bob.patient.pk).update(**fields)
    assert start(bob).context.greeting == greeting


@pytest.mark.parametrize("language", ["de", "de-AT", "xx"])
def test_a_language_without_a_greeting_has_none(phrases: None, bob: Member, language: str):
    Patient.objects.filter(pk=bob.patient.pk).update(language=language)
    assert start(bob).context.greeting is None


@pytest.mark.parametrize(
    ("template", "name", "companion", "greeting"),
    [
        ("Hi {patient_name}!", "Ann", "Clara", "Hi Ann!"),
        ("{ai_name}, {ai_name} and {patient_name}", "Ann", "Clara", "Clara, Clara and Ann"),
        ("Hi.", "Ann", "Clara", "Hi."),
        ("Hi {patient_name}", "{ai_name}", "Clara", "Hi {ai_name}"),
        ("Hi {patient_name}, {ai_name} here", "Ann", "{patient_name}", "Hi Ann, {patient_name} here"),
        ("Hi {patient_name}", "{0} {} {{x}} %s", "Clara", "Hi {0} {} {{x}} %s"),
        (
            "{unknown} {0} {} {patient_name.__class__} %s",
            "Ann",
            "Clara",
            "{unknown} {0} {} {patient_name.__class__} %s",
        ),
        (r"Hi {patient_name}", r"Ann \1 \g<0>", "Clara", r"Hi Ann \1 \g<0>"),
    ],
)
def test_names_are_inserted_unchanged(template: str, name: str, companion: str, greeting: str):
    assert render_greeting(template, name, companion) == greeting


# Resuming


def test_resuming_restores_voice_format_ids_and_characters(alice: Member):
    opened = start(alice, "pcm_24000")
    for client_id, origin in (("greeting", "greeting"), ("s1", "device"), ("s2", "device")):
        Utterance.objects.create(
            conversation=row_of(opened),
            patient=alice.patient,
            client_speech_id=client_id,
            origin=origin,
            text="Hello.",
            state="spoken",
        )
    Conversation.objects.filter(pk=opened.context.conversation_id).update(tts_characters_used=77)
    again = resume(alice, opened)
    assert again == OpenConversation(opened.context, frozenset({"greeting", "s1", "s2"}), 77)


def test_another_device_of_the_same_patient_may_resume(alice: Member):
    opened = start(alice)
    tablet, _ = Device.objects.issue(alice.patient, "tablet")
    again = lifecycle.resume(tablet.id, opened.context.conversation_id)
    assert again.context.conversation_id == opened.context.conversation_id
    assert row_of(opened).device == tablet


def test_resuming_updates_the_time_of_last_contact(alice: Member):
    opened = start(alice)
    before = set_last_seen(opened, minutes_ago=29)
    resume(alice, opened)
    assert row_of(opened).seen_at > before.seen_at


def test_a_conversation_of_another_patient_is_unknown(alice: Member, bob: Member):
    opened = start(alice)
    with pytest.raises(UnknownConversation) as error:
        resume(bob, opened)
    assert error.value.code == "unknown_id"
    assert row_of(opened).device == alice.device


def test_an_ended_conversation_is_unknown(alice: Member):
    opened = start(alice)
    lifecycle.end(opened.context.conversation_id)
    with pytest.raises(UnknownConversation):
        resume(alice, opened)


def test_an_abandoned_conversation_is_unknown_before_the_task_ends_it(alice: Member):
    opened = start(alice)
    set_last_seen(opened, minutes_ago=31)
    with pytest.raises(UnknownConversation):
        resume(alice, opened)


@pytest.mark.parametrize(
    "conversation_id",
    ["", " ", "no uuid", "0" * 31, "0" * 33, "\0", "☃" * 32, "1' OR 1=1 --", "x" * 60_000, str(uuid.UUID(int=0))],
)
def test_an_invalid_id_is_unknown(alice: Member, conversation_id: str):
    start(alice)
    with pytest.raises(UnknownConversation):
        lifecycle.resume(alice.device.id, lifecycle.parse_id(conversation_id))


def test_an_id_may_have_any_letter_case():
    conversation_id = uuid.uuid4()
    for text in (str(conversation_id), str(conversation_id).upper(), conversation_id.hex):
        assert lifecycle.parse_id(text) == conversation_id


def test_a_changed_name_is_used_in_the_next_greeting(phrases: None, alice: Member):
    opened = start(alice)
    Patient.objects.filter(pk=alice.patient.pk).update(preferred_name="Ally")
    assert resume(alice, opened).context.greeting.startswith("Hello Ally,")


# Ending


def test_ending_is_idempotent(alice: Member):
    opened = start(alice)
    lifecycle.end(opened.context.conversation_id)
    first = row_of(opened).ended_at
    lifecycle.end(opened.context.conversation_id)
    assert row_of(opened).ended_at == first is not None


def test_ending_an_unknown_conversation_changes_nothing(alice: Member):
    opened = start(alice)
    lifecycle.end(uuid.uuid4())
    assert row_of(opened).ended_at is None


def test_reconciled_characters_are_added_only_to_unfinished_conversations(alice: Member, bob: Member):
    opened, ended, abandoned = start(alice), start(alice), start(bob)
    lifecycle.end(ended.context.conversation_id)
    set_last_seen(abandoned, minutes_ago=31)
    keys = [one.context.conversation_id for one in (opened, ended, abandoned)]
    for _ in range(2):
        lifecycle.add_reconciled_characters({**dict.fromkeys(keys, 20), uuid.uuid4(): 5})
    lifecycle.add_reconciled_characters({})
    assert [row_of(one).tts_characters_used for one in (opened, ended, abandoned)] == [40, 0, 0]


def test_only_a_conversation_unseen_for_30_minutes_is_ended(alice: Member, bob: Member):
    old, young = start(alice), start(bob)
    set_last_seen(old, minutes_ago=31)
    set_last_seen(young, minutes_ago=29)
    assert lifecycle.end_abandoned() == 1
    assert row_of(old).ended_at is not None
    assert row_of(young).ended_at is None
    assert lifecycle.end_abandoned() == 0


@pytest.mark.parametrize("number", range(2, 8))
def test_a_conversation_that_is_seen_again_meanwhile_ends_with_its_speech_or_not_at_all(alice: Member, number: int):
    opened = start(alice)
    key = opened.context.conversation_id
    set_last_seen(opened, minutes_ago=31)
    speech = Utterance.objects.create(
        conversation_id=key, patient=alice.patient, client_speech_id="s1", origin="device", text="Hi", state="speaking"
    )
    with heartbeat_before_statement(number, key):
        ended = lifecycle.end_abandoned()
    speech.refresh_from_db()
    has_ended = row_of(opened).ended_at is not None
    assert (speech.state, has_ended) == (("interrupted", True) if ended else ("speaking", False))
    assert not ended or number > 2


@contextmanager
def heartbeat_before_statement(number: int, key: uuid.UUID) -> Iterator[None]:
    """Inside, another process sees the conversation before the statement with this number. The first is 1."""
    count = 0

    def execute(run: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            lifecycle.heartbeat([key])
        return run(sql, *arguments)

    with connection.execute_wrapper(execute):
        yield


def test_an_abandoned_conversation_ends_at_the_time_it_was_last_seen(alice: Member):
    opened = start(alice)
    before = set_last_seen(opened, minutes_ago=45)
    lifecycle.end_abandoned()
    assert row_of(opened).ended_at == before.seen_at


# Clocks: rows that a host with a wrong clock has written


def start_in_the_future(member: Member, **fields: object) -> OpenConversation:
    """Start a conversation on a host whose clock is an hour fast."""
    opened = start(member)
    Conversation.objects.filter(pk=opened.context.conversation_id).update(
        started_at=timezone.now() + timedelta(hours=1), **fields
    )
    return opened


def test_a_conversation_that_began_in_the_future_can_be_ended(alice: Member):
    opened = start_in_the_future(alice)
    lifecycle.end(opened.context.conversation_id)
    row = row_of(opened)
    assert row.ended_at == row.started_at


def test_a_conversation_seen_before_its_start_does_not_keep_others_open(alice: Member, bob: Member):
    strange = start_in_the_future(alice, seen_at=timezone.now() - timedelta(minutes=31))
    usual = start(bob)
    set_last_seen(usual, minutes_ago=31)
    assert lifecycle.end_abandoned() == 2
    assert None not in (row_of(strange).ended_at, row_of(usual).ended_at)


@pytest.mark.django_db(transaction=True)
def test_a_row_that_the_database_refuses_does_not_keep_others_open(alice: Member, bob: Member):
    refused, usual = start(alice), start(bob)
    for opened in (refused, usual):
        set_last_seen(opened, minutes_ago=31)
    with refusing_updates_of(refused.context.conversation_id), pytest.raises(RowsFailed):
        lifecycle.end_abandoned()
    assert (row_of(refused).ended_at, row_of(usual).ended_at is None) == (None, False)
    assert lifecycle.end_abandoned() == 1


@contextmanager
def refusing_updates_of(key: uuid.UUID) -> Iterator[None]:
    """Inside, the database refuses to update the row with this key."""

    def execute(run: Callable[..., Any], sql: str, params: Any, *arguments: Any) -> Any:
        if sql.startswith("UPDATE") and {key, key.hex} & set(params or ()):
            raise IntegrityError("refused")
        return run(sql, params, *arguments)

    with connection.execute_wrapper(execute):
        yield


@pytest.mark.parametrize("offset", [timedelta(hours=-2), timedelta(hours=2)])
def test_the_clock_of_the_process_decides_nothing(
    alice: Member, bob: Member, offset: timedelta, monkeypatch: pytest.MonkeyPatch
):
    real = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + offset)
    opened, abandoned = start(alice), start(bob)
    Conversation.objects.filter(pk=abandoned.context.conversation_id).update(seen_at=real() - timedelta(minutes=31))
    lifecycle.heartbeat([opened.context.conversation_id])
    resume(alice, opened)
    with pytest.raises(UnknownConversation):
        resume(bob, abandoned)
    lifecycle.end(opened.context.conversation_id)
    row = row_of(opened)
    for written in (row.started_at, row.seen_at, row.ended_at):
        assert abs(written - real()) < timedelta(minutes=1)


def test_a_heartbeat_keeps_a_conversation_from_being_abandoned(alice: Member):
    opened = start(alice)
    set_last_seen(opened, minutes_ago=31)
    lifecycle.heartbeat([opened.context.conversation_id])
    assert lifecycle.end_abandoned() == 0


def test_a_heartbeat_does_not_change_an_ended_conversation(alice: Member):
    opened = start(alice)
    lifecycle.end(opened.context.conversation_id)
    before = set_last_seen(opened, minutes_ago=5)
    lifecycle.heartbeat([opened.context.conversation_id])
    assert row_of(opened).seen_at == before.seen_at


def test_starting_a_conversation_takes_few_queries(phrases: None, alice: Member, django_assert_max_num_queries):
    with django_assert_max_num_queries(10):
        start(alice)
