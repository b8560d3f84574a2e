"""What Celery does for conversations and phrases, and that the schedule names what there is."""

from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as configured
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from tts import conversations, tasks
from tts.models import Conversation
from tts.phrases import PhraseCache
from voicecare.celery import app


@pytest.mark.django_db
def test_abandoned_conversations_are_ended(alice: Member):
    conversations.begin(alice.device.id, None)
    long_ago = timezone.now() - timedelta(hours=1)
    Conversation.objects.update(seen_at=long_ago, started_at=long_ago)
    tasks.end_abandoned_conversations()
    assert not Conversation.objects.unfinished().exists()


def test_old_clips_are_removed_from_the_servers_own_cache(settings: Settings, tmp_path: Path):
    settings.DATA_DIR = tmp_path
    old, young = (PhraseCache(tmp_path / "phrases", settings.SECRET_KEY, ttl_s) for ttl_s in (-1, 60))
    old.put("aa" * 32, b"old")
    young.put("bb" * 32, b"young")
    tasks.prune_phrases()
    assert (old.get("aa" * 32), young.get("bb" * 32)) == (None, b"young")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("entry", configured.CELERY_BEAT_SCHEDULE)
def test_every_entry_of_the_schedule_names_a_task(entry: str):
    app.loader.import_default_modules()
    assert configured.CELERY_BEAT_SCHEDULE[entry]["task"] in app.tasks
