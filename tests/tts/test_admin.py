"""The page and the list of an utterance explain why it waited, failed, or was played in another voice."""

import re
import uuid

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from tests.conftest import Member
from tts.models import Conversation, Utterance
from usage.ledger.events import Attempt, Outcome, record_attempts

pytestmark = pytest.mark.django_db

SECRET_TEXT = "Your knee will be better tomorrow."


@pytest.fixture
def conversation(alice: Member) -> Conversation:
    return Conversation.objects.create(
        patient=alice.patient, voice=alice.patient.voice, voice_source="selected", format="pcm_16000"
    )


def utterance_of(conversation: Conversation, **fields: object) -> Utterance:
    required = {"patient": conversation.patient, "origin": "device", "text": SECRET_TEXT, "client_speech_id": "say-1"}
    return Utterance.objects.create(conversation=conversation, **{**required, "state": "spoken", **fields})


def staff(*permissions: str) -> Client:
    user = User.objects.create_user(f"user-{uuid.uuid4().hex[:6]}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=(*permissions, "view_all_patients")))
    client = Client()
    client.force_login(user)
    return client


def page_of(client: Client, utterance: Utterance) -> str:
    response = client.get(reverse("admin:tts_utterance_change", args=[utterance.pk]))
    assert response.status_code == 200
    return re.sub(r"\s+", " ", response.content.decode())


def test_the_page_shows_the_queue_reason_the_fallback_and_the_attempts(conversation: Conversation):
    utterance = utterance_of(conversation, queue_reason="quota", source="backup")
    failed = Attempt(utterance.pk, 0, 1, "live", 34, voice_id=conversation.voice_id)
    failed.outcome, failed.code, failed.request_id = Outcome.FAILED.value, "voice_not_found", "req-failed"
    played = Attempt(utterance.pk, 0, 2, "backup", 34, voice_id=conversation.voice_id)
    played.mark_answered("req-played", 17)
    record_attempts([failed, played])

    client = staff("view_utterance", "view_usageevent")
    page = page_of(client, utterance)
    assert "Credits exhausted" in page
    assert f"Backup voice instead of {conversation.voice.name}" in page
    assert page.index("voice_not_found") < page.index("req-failed") < page.index("req-played")
    (link,) = re.findall(r'href="([^"]+)">Usage events of this message', page)
    assert client.get(link).content.decode().count('class="field-started') == 2


def test_attempts_need_the_permission_to_view_usage_events(conversation: Conversation):
    utterance = utterance_of(conversation, source="live")
    attempt = Attempt(utterance.pk, 0, 1, "live", 34)
    attempt.mark_answered("req-played", 17)
    record_attempts([attempt])
    assert "req-played" not in page_of(staff("view_utterance"), utterance)


def test_the_list_shows_the_queue_reason_and_the_voice_but_no_text(conversation: Conversation):
    utterance_of(conversation, source="offline", queue_reason="busy", code="")
    utterance_of(conversation, source="live", client_speech_id="say-2")
    page = staff("view_utterance").get(reverse("admin:tts_utterance_changelist")).content.decode()
    assert page.count("Provider busy") > 1  # in the row and in the filter
    assert f"Offline voice instead of {conversation.voice.name}" in page
    assert f'<td class="field-heard_voice">{conversation.voice.name}</td>' in page
    assert "knee" not in page


def test_times_have_seconds_and_a_time_zone(conversation: Conversation):
    utterance = utterance_of(conversation)
    expected = f"{utterance.received_at:%Y-%m-%d %H:%M:%S} UTC"
    assert expected in page_of(staff("view_utterance"), utterance)
    assert expected in staff("view_utterance").get(reverse("admin:tts_utterance_changelist")).content.decode()


def test_an_utterance_without_audio_shows_no_voice(conversation: Conversation):
    utterance = utterance_of(conversation, state="expired", source="", queue_reason="quota")
    assert "instead of" not in page_of(staff("view_utterance", "view_usageevent"), utterance)
