"""Constraints and querysets of conversations, utterances and phrases."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.db.models.functions import Now
from django.utils import timezone

from tests.conftest import Member
from tts.models import ABANDONED_AFTER, Conversation, Phrase, Utterance
from tts.states import Source, UtteranceState
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db


@pytest.fixture
def conversation(alice: Member) -> Conversation:
    return Conversation.objects.create(**_legal(alice))


def _legal(member: Member) -> dict:
    return {
        "patient": member.patient,
        "device": member.device,
        "voice": member.patient.voice,
        "voice_source": "selected",
        "format": "pcm_16000",
    }


def create_utterance(conversation: Conversation, client_speech_id: str = "s1", **fields: object) -> Utterance:
    legal = {"patient": conversation.patient, "origin": "device", "text": "Hello.", "state": "waiting"}
    return Utterance.objects.create(conversation=conversation, client_speech_id=client_speech_id, **{**legal, **fields})


def rejects(make: object, *arguments: object, **fields: object) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make(*arguments, **fields)


# Conversations


def test_the_table_has_the_required_name_and_column():
    assert Conversation._meta.db_table == "conversations"
    assert Conversation._meta.get_field("tts_characters_used").column == "tts_characters_used"


@pytest.mark.parametrize(
    "fields",
    [
        {"voice_source": "guessed"},
        {"voice_source": ""},
        {"initiated": "nobody"},
        {"tts_characters_used": -1},
        {"patient": None},
        {"voice": None},
        {"ended_at": timezone.now() - timedelta(days=1)},
    ],
)
def test_the_database_rejects_an_invalid_conversation(alice: Member, fields: dict):
    rejects(Conversation.objects.create, **{**_legal(alice), **fields})


def test_a_conversation_cannot_end_before_it_started(conversation: Conversation):
    conversation.ended_at = conversation.started_at
    conversation.save()
    assert not Conversation.objects.unfinished().exists()


def test_a_conversation_keeps_its_voice_and_outlives_its_device(conversation: Conversation):
    with pytest.raises(ProtectedError):
        Voice.objects.get(pk=conversation.voice_id).delete()
    conversation.device.delete()
    conversation.refresh_from_db()
    assert conversation.device is None


@pytest.mark.parametrize(
    ("since", "abandoned"),
    [(ABANDONED_AFTER - timedelta(minutes=1), False), (ABANDONED_AFTER + timedelta(seconds=1), True)],
)
def test_a_conversation_unseen_for_30_minutes_is_abandoned(
    conversation: Conversation, since: timedelta, abandoned: bool
):
    assert timedelta(minutes=30) == ABANDONED_AFTER
    Conversation.objects.update(seen_at=Now() - since)
    assert Conversation.objects.abandoned().exists() is abandoned
    assert Conversation.objects.resumable().exists() is not abandoned


def test_an_ended_conversation_is_not_abandoned(conversation: Conversation):
    long_ago = timezone.now() - timedelta(days=1)
    Conversation.objects.update(started_at=long_ago, seen_at=long_ago, ended_at=timezone.now())
    assert not Conversation.objects.abandoned().exists()


# Utterances


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "done"},
        {"state": ""},
        {"origin": "nobody"},
        {"source": "radio"},
        {"characters": -1},
        {"bytes_sent": -1},
        {"text": None},
        {"patient": None},
    ],
)
def test_the_database_rejects_an_invalid_utterance(conversation: Conversation, fields: dict):
    rejects(create_utterance, conversation, **fields)


@pytest.mark.parametrize("state", list(UtteranceState))
@pytest.mark.parametrize("source", ["", *Source])
def test_the_database_accepts_every_state_and_source(conversation: Conversation, state: str, source: str):
    assert create_utterance(conversation, state=state, source=source).pk


def test_the_id_of_a_device_is_unique_in_a_conversation(alice: Member, conversation: Conversation):
    create_utterance(conversation)
    rejects(create_utterance, conversation)
    create_utterance(conversation, "S1")
    create_utterance(Conversation.objects.create(**_legal(alice)))


def test_a_resumed_conversation_may_greet_again(conversation: Conversation):
    for _ in range(2):
        create_utterance(conversation, "greeting", origin="greeting")
    assert conversation.utterances.count() == 2


def test_the_string_of_a_row_contains_neither_name_nor_text(conversation: Conversation):
    shown = f"{conversation} {create_utterance(conversation)}"
    assert "Alice" not in shown
    assert "Hello" not in shown


# Phrases


def test_a_phrase_is_unique_in_a_language():
    Phrase.objects.create(text="Ja.")
    rejects(Phrase.objects.create, text="Ja.")
    Phrase.objects.create(text="Ja.", language="de")


def test_a_language_has_one_greeting():
    Phrase.objects.create(kind="greeting", text="Hello.")
    rejects(Phrase.objects.create, kind="greeting", text="Hi.")
    Phrase.objects.create(kind="greeting", text="Hallo.", language="de")


def test_the_database_rejects_an_unknown_kind_of_phrase():
    rejects(Phrase.objects.create, kind="rare", text="Hello.")


@pytest.mark.parametrize(
    ("language", "found"),
    [("en", ["Hello."]), ("en-GB", ["Hello."]), ("EN", ["Hello."]), ("de-AT", ["Hallo."]), ("fr", [])],
)
def test_a_language_and_its_regions_share_their_phrases(language: str, found: list[str]):
    Phrase.objects.create(text="Hello.")
    Phrase.objects.create(text="Hallo.", language="de")
    assert [phrase.text for phrase in Phrase.objects.for_language(language)] == found
