"""What Celery does for conversations and speech, from the schedule in the settings."""

import time

from celery import shared_task
from django.conf import settings

from tts import conversations
from tts.phrases import PhraseCache


@shared_task(name="tts.end_abandoned_conversations")
def end_abandoned_conversations() -> None:
    conversations.end_abandoned()


@shared_task(name="tts.prune_phrases")
def prune_phrases() -> None:
    PhraseCache(settings.DATA_DIR / "phrases", settings.SECRET_KEY, settings.PHRASE_TTL_S).prune(time.time())
