"""The Celery tasks for conversations and phrases, and the names in the schedule."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as configured
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from tests.tts.examples import RENDERING
from tts import tasks
from tts.cache.phrase_cache import PhraseCache
from tts.cache.stores import create_store
from tts.conversations import lifecycle
from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.models import Clip, Conversation
from voicecare.celery import app


@pytest.mark.django_db
def test_abandoned_conversations_are_ended(alice: Member):
    lifecycle.start(alice.device.id, None)
    long_ago = timezone.now() - timedelta(hours=1)
    Conversation.objects.update(seen_at=long_ago, started_at=long_ago)
    tasks.end_abandoned_conversations()
    assert not Conversation.objects.unfinished().exists()


@pytest.mark.django_db(transaction=True)
def test_expired_clips_are_deleted_from_the_configured_store(settings: Settings, tmp_path: Path, alice: Member):
    settings.PHRASE_STORE = "file"
    folder = {"BACKEND": "tts.cache.stores.AtomicFileStorage", "OPTIONS": {"location": tmp_path}}
    settings.STORAGES = {**settings.STORAGES, "phrases": folder}
    cache = PhraseCache(create_store(settings), settings.PHRASE_SECRET, settings.PHRASE_TTL_S)
    speech_settings = replace(RENDERING, voice=VoiceRef.from_voice(alice.patient.voice))
    for text in ("old", "young"):
        asyncio.run(_put(cache, speech_settings, text))
    Clip.objects.filter(characters=3).update(expires_at=timezone.now())
    tasks.prune_phrases()
    assert [clip.characters for clip in Clip.objects.all()] == [len("young")]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


async def _put(cache: PhraseCache, speech_settings: SpeechSettings, text: str) -> None:
    await cache.store(speech_settings, text, b"sound")


@pytest.mark.parametrize("entry", configured.CELERY_BEAT_SCHEDULE)
def test_every_entry_of_the_schedule_names_a_registered_task(entry: str):
    app.loader.import_default_modules()
    assert configured.CELERY_BEAT_SCHEDULE[entry]["task"] in app.tasks
