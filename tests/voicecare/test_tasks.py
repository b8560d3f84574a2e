"""Celery tasks that involve several apps: reconciliation, including the counts of conversations, and old logins."""

import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.utils import timezone
from knox.models import AuthToken
from pytest_django import Settings

from tests.conftest import Member
from tests.sandbox import SandboxProcess
from tts.conversations import lifecycle
from tts.models import Conversation
from usage.ledger import events
from usage.models import UsageEvent
from voicecare import tasks
from voicecare.accounts import tokens
from voicecare.accounts.models import ApiToken

pytestmark = pytest.mark.django_db


def test_the_task_settles_unconfirmed_attempts_and_can_run_twice(
    settings: Settings, sandbox: SandboxProcess, bob: Member
):
    settings.ELEVENLABS_BASE_URL = sandbox.url
    talk = lifecycle.start(bob.device.id, None)
    voice, at = talk.context.speech_settings.voice, timezone.now() - timedelta(minutes=11)
    events.record_attempts(
        [
            events.Attempt(
                source_id=uuid.uuid4(),
                segment=0,
                attempt=1,
                kind="live",
                requested_characters=5,
                started_at=at,
                voice_id=voice.id,
                model="eleven_flash_v2_5",
                conversation_id=talk.context.conversation_id,
            )
        ]
    )
    sandbox.add_external_usage("Hello", unix=at.timestamp(), model_id="eleven_flash_v2_5", voice_id=voice.provider_id)
    tasks.reconcile()
    tasks.reconcile()
    assert (UsageEvent.objects.get().code, Conversation.objects.get().tts_characters_used) == ("billed", 5)


def test_expired_logins_are_deleted():
    user, at = User.objects.create_user("carol"), timezone.now()
    for hours in (-1, 1):
        token, _ = tokens.issue_for_log_in(user, None)
        ApiToken.objects.filter(pk=token.pk).update(expires_at=at + timedelta(hours=hours))
        AuthToken.objects.filter(api_token=token).update(expiry=at + timedelta(hours=hours))
        Session.objects.create(session_key=f"session {hours}", session_data="", expire_date=at + timedelta(hours=hours))
    for name, days in (("endless", None), ("old", -1)):
        expires_at = None if days is None else at + timedelta(days=days)
        tokens.issue(ApiToken(name=name, owner=user, expires_at=expires_at))
    tasks.prune_logins()
    assert sorted(AuthToken.objects.values_list("expiry", flat=True), key=str) == [at + timedelta(hours=1), None]
    assert sorted(ApiToken.objects.values_list("name", flat=True)) == ["", "endless", "old"]
    assert Session.objects.get().session_key == "session 1"
