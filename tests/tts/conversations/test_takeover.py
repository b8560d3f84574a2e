"""Running conversations get other voices when theirs are lost."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from pytest_django import Settings

from tests.conftest import Member
from tts.conversations import lifecycle, takeover
from tts.conversations.context import OpenConversation
from tts.conversations.voice import NO_VOICE
from tts.models import Conversation
from voicecare.patients.models import DefaultVoice, Patient, Voice

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def unset(settings: Settings) -> None:
    settings.DEFAULT_VOICE_ID = ""


def voice(name: str, **fields: object) -> Voice:
    return Voice.objects.create(provider_id=f"id-{name}", name=name, **fields)


def start(member: Member, own: Voice | None = None) -> OpenConversation:
    Patient.objects.filter(pk=member.patient.pk).update(voice=own)
    return lifecycle.start(member.device.pk, None)


def names(opened: OpenConversation) -> tuple[str, str, str, str]:
    """The names of voice, backup voice and reserve voice, and the source of the voice."""
    context = opened.context
    return (
        context.speech_settings.voice.name,
        context.backup_settings.voice.name,
        context.reserve_voice.name,
        context.voice_source,
    )


def test_a_conversation_knows_its_backup_voice_and_the_one_that_would_follow(bob: Member):
    assert names(start(bob)) == ("Offline voice", "Offline voice", "Offline voice", "default")
    rachel = voice("Rachel")
    assert names(start(bob)) == ("Rachel", "Rachel", "Offline voice", "default")
    voice("Zoe", languages="de")
    assert names(start(bob)) == ("Rachel", "Rachel", "Zoe", "default")
    george = voice("George", languages="en")
    assert names(start(bob)) == ("Rachel", "Rachel", "George", "default")
    Voice.objects.filter(pk=rachel.pk).update(successor=Voice.objects.get(name="Zoe"))
    assert names(start(bob, george)) == ("George", "Rachel", "Zoe", "selected")


def test_a_conversation_without_a_voice_has_no_voice_row(bob: Member):
    opened = start(bob)
    assert opened.context.speech_settings.voice == NO_VOICE
    row = Conversation.objects.get()
    assert (row.voice, row.voice_source) == (None, "default")
    assert lifecycle.resume(bob.device.pk, row.pk).context.speech_settings.voice == NO_VOICE
    voice("Rachel")
    assert names(lifecycle.resume(bob.device.pk, row.pk))[0] == "Rachel"
    row.refresh_from_db()
    assert row.voice is not None


@pytest.mark.parametrize(
    ("change", "lost", "refused"),
    [
        ({}, False, False),
        ({"refusal": "refused"}, False, True),
        ({"state": "gone"}, True, True),
        ({"state": "withdrawn"}, True, True),
        ({"ends_at": "2020-01-01T00:00Z"}, True, True),
    ],
)
def test_which_voices_are_unreliable(change: dict[str, object], lost: bool, refused: bool):
    one = voice("Rachel", **change)
    found = takeover.unreliable_voices({one.pk, NO_VOICE.id})
    assert found.lost == ({one.pk, NO_VOICE.id} if lost else {NO_VOICE.id})
    assert found.refused == ({one.pk, NO_VOICE.id} if refused else {NO_VOICE.id})


def test_a_refusal_concerns_only_default_and_backup_voices(alice: Member, bob: Member):
    rachel = voice("Rachel")
    sarah = voice("Sarah")
    DefaultVoice.objects.create(voice=rachel)
    own, default = start(alice, sarah), start(bob)
    Voice.objects.filter(pk=sarah.pk).update(refusal="refused")
    found = takeover.unreliable_voices({rachel.pk, sarah.pk})
    assert [found.concern(opened.context) for opened in (own, default)] == [False, False]
    Voice.objects.filter(pk=rachel.pk).update(refusal="refused")
    found = takeover.unreliable_voices({rachel.pk, sarah.pk})
    assert [found.concern(opened.context) for opened in (own, default)] == [True, True]


def test_an_own_backup_voice_is_replaced_by_the_default_voice_when_it_is_lost(bob: Member):
    rachel, george, sarah = voice("Rachel"), voice("George"), voice("Sarah")
    DefaultVoice.objects.create(voice=rachel)
    Patient.objects.filter(pk=bob.patient.pk).update(backup_voice=george)
    opened = start(bob, sarah)
    assert names(opened) == ("Sarah", "George", "Rachel", "selected")
    Voice.objects.filter(pk=george.pk).update(refusal="refused")
    assert takeover.unreliable_voices({sarah.pk, george.pk}).concern(opened.context)
    assert names(changed(opened))[:2] == ("Sarah", "Rachel")
    Voice.objects.filter(pk=george.pk).update(refusal="")
    Voice.objects.filter(pk=sarah.pk).update(state="gone")
    assert names(changed(opened)) == ("George", "George", "Rachel", "selected")


# Patients who hear only their own voice


def only_own_voice(member: Member, own: Voice | None = None) -> OpenConversation:
    Patient.objects.filter(pk=member.patient.pk).update(backup_policy="own_voice_only")
    return start(member, own)


def changed(opened: OpenConversation) -> OpenConversation:
    choices = takeover.choose_voices([opened.context.conversation_id])
    return replace(opened, context=choices[opened.context.conversation_id].apply_to(opened.context))


def is_concerned(opened: OpenConversation) -> bool:
    voices = {opened.context.speech_settings.voice.id, opened.context.backup_settings.voice.id}
    return takeover.unreliable_voices(voices).concern(opened.context)


def test_only_the_own_voice_stays_when_it_has_ended_or_is_refused(bob: Member):
    DefaultVoice.objects.create(voice=voice("Rachel"))
    sarah = voice("Sarah")
    opened = only_own_voice(bob, sarah)
    assert names(opened) == ("Sarah", "Offline voice", "Offline voice", "selected")
    Voice.objects.filter(pk=sarah.pk).update(refusal="refused", ends_at="2020-01-01T00:00Z")
    assert not is_concerned(opened)
    assert names(lifecycle.resume(bob.device.pk, opened.context.conversation_id)) == names(opened)
    assert not opened.context.speech_settings.voice.is_offline


def test_a_gone_voice_stays_for_cached_phrases_and_speaks_when_it_is_back(bob: Member):
    DefaultVoice.objects.create(voice=voice("Rachel"))
    sarah = voice("Sarah")
    opened = only_own_voice(bob, sarah)
    Voice.objects.filter(pk=sarah.pk).update(state="gone")
    assert is_concerned(opened)
    gone = changed(opened)
    started, resumed = start(bob, sarah), lifecycle.resume(bob.device.pk, opened.context.conversation_id)
    for each in (gone, started, resumed):
        assert names(each) == ("Sarah", "Offline voice", "Offline voice", "selected")
        assert each.context.speech_settings.voice.is_offline
        assert each.context.speech_settings.voice.provider_id == sarah.provider_id  # part of the key of a cached phrase
    Voice.objects.filter(pk=sarah.pk).update(state="usable")
    assert is_concerned(gone)
    back = changed(gone)
    assert not back.context.speech_settings.voice.is_offline
    assert not is_concerned(back)


def test_a_withdrawn_voice_is_followed_by_the_offline_voice_until_another_one_is_chosen(bob: Member):
    rachel, sarah = voice("Rachel"), voice("Sarah")
    DefaultVoice.objects.create(voice=rachel)
    opened = only_own_voice(bob, sarah)
    Voice.objects.filter(pk=sarah.pk).update(state="withdrawn")
    assert is_concerned(opened)
    assert changed(opened).context.speech_settings.voice == NO_VOICE
    Patient.objects.filter(pk=bob.patient.pk).update(voice=None)
    withdrawn = changed(opened)
    assert withdrawn.context.speech_settings.voice == NO_VOICE
    assert names(start(bob))[0] == names(lifecycle.resume(bob.device.pk, opened.context.conversation_id))[0]
    assert names(start(bob)) == ("Offline voice", "Offline voice", "Offline voice", "default")
    Patient.objects.filter(pk=bob.patient.pk).update(voice=rachel)
    assert is_concerned(withdrawn)
    assert names(changed(withdrawn))[0] == "Rachel"


def test_a_conversation_in_another_voice_does_not_continue_in_it_under_the_new_policy(bob: Member):
    DefaultVoice.objects.create(voice=voice("Rachel"))
    sarah = voice("Sarah", state="gone")
    opened = start(bob, sarah)
    assert names(opened)[0] == "Rachel"
    Patient.objects.filter(pk=bob.patient.pk).update(backup_policy="own_voice_only")
    resumed = lifecycle.resume(bob.device.pk, opened.context.conversation_id)
    assert names(resumed) == ("Sarah", "Offline voice", "Offline voice", "selected")
    assert resumed.context.speech_settings.voice.is_offline


@pytest.mark.parametrize("number", [1, 5])
def test_many_conversations_take_as_many_queries_as_one(
    number: int, member: Callable[..., Member], django_assert_num_queries
):
    rachel = voice("Rachel")
    voice("Sarah")
    assert Voice.objects.default() == rachel
    opened = [start(member(f"Patient {one}")) for one in range(number)]
    Voice.objects.filter(pk=rachel.pk).update(state="gone")
    assert Voice.objects.default().name == "Sarah"
    with django_assert_num_queries(4):  # rows of the default voices, conversations, candidates, one update
        choices = takeover.choose_voices([each.context.conversation_id for each in opened])
    assert {choice.voice.name for choice in choices.values()} == {"Sarah"}
    assert set(Conversation.objects.values_list("voice__name", flat=True)) == {"Sarah"}
