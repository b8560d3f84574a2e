"""Conversations, what was said in them, and the phrases worth keeping."""

import uuid
from datetime import datetime, timedelta

from django.db import models
from django.db.models import Q
from django.utils import timezone

from voicecare.audio import DEVICE_FORMATS
from voicecare.patients.models import Device, Patient, Voice

ABANDONED_AFTER = timedelta(minutes=30)  # the contract, section 1: unresumed for 30 minutes, the conversation ends


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def unfinished(self) -> "ConversationQuerySet":
        return self.filter(ended_at=None)

    def resumable(self, now: datetime) -> "ConversationQuerySet":
        """Also before the sweep for abandoned ones has come by."""
        return self.unfinished().filter(seen_at__gte=now - ABANDONED_AFTER)

    def abandoned(self, now: datetime) -> "ConversationQuerySet":
        return self.unfinished().filter(seen_at__lt=now - ABANDONED_AFTER)


class Conversation(models.Model):
    """One talk with one patient, in one voice from beginning to end. It has ended when `ended_at` is set."""

    class Initiated(models.TextChoices):
        DEVICE = "device"
        SERVER = "server"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT, related_name="conversations")
    device = models.ForeignKey(Device, null=True, on_delete=models.SET_NULL, related_name="conversations")
    voice = models.ForeignKey(Voice, on_delete=models.PROTECT, related_name="conversations")
    voice_source = models.CharField(
        max_length=8, choices=[("cloned", "cloned"), ("selected", "selected"), ("default", "default")]
    )
    format = models.CharField(max_length=20, choices=[(name, name) for name in DEVICE_FORMATS])
    initiated = models.CharField(max_length=6, choices=Initiated, default=Initiated.DEVICE)
    tts_characters_used = models.PositiveBigIntegerField(default=0)
    started_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        db_table = "conversations"  # named by the owner
        ordering = ("-started_at",)
        indexes = [models.Index(fields=["seen_at"], condition=Q(ended_at=None), name="conversation_unfinished")]
        constraints = [
            models.CheckConstraint(
                condition=Q(voice_source__in=["cloned", "selected", "default"]), name="conversation_voice_source"
            ),
            models.CheckConstraint(condition=Q(initiated__in=["device", "server"]), name="conversation_initiated"),
            models.CheckConstraint(
                condition=Q(ended_at=None) | Q(ended_at__gte=models.F("started_at")),
                name="conversation_ends_after_start",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M}"


class UtteranceQuerySet(models.QuerySet["Utterance"]):
    def interrupt_unfinished(self) -> None:
        """A process that was killed never said how these ended."""
        unfinished = self.filter(state__in=[Utterance.State.WAITING, Utterance.State.SPEAKING])
        unfinished.update(state=Utterance.State.INTERRUPTED)


class Utterance(models.Model):
    """Something that was to be said, and what became of it."""

    class Origin(models.TextChoices):
        DEVICE = "device"
        GREETING = "greeting"

    class State(models.TextChoices):
        WAITING = "waiting"
        SPEAKING = "speaking"
        SPOKEN = "spoken"
        FAILED = "failed"
        INTERRUPTED = "interrupted"

    class Source(models.TextChoices):
        LIVE = "live"
        CACHE = "cache"
        BACKUP = "backup"
        OFFLINE = "offline"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.PROTECT, related_name="utterances")
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT, related_name="utterances")
    client_id = models.CharField(max_length=64, help_text="The id on the WebSocket.")
    origin = models.CharField(max_length=8, choices=Origin)
    text = models.TextField()
    state = models.CharField(max_length=11, choices=State)
    source = models.CharField(max_length=7, choices=Source, blank=True, help_text="Whose voice it ended in.")
    code = models.CharField(max_length=32, blank=True, help_text="Why it failed.")
    characters = models.PositiveIntegerField(default=0)
    bytes_sent = models.PositiveBigIntegerField(default=0)
    first_chunk_ms = models.FloatField(null=True)
    received_at = models.DateTimeField(default=timezone.now)
    spoken_at = models.DateTimeField(null=True)

    objects = UtteranceQuerySet.as_manager()

    class Meta:
        ordering = ("-received_at",)
        constraints = [
            # A resumed conversation may greet again, so the greeting is not bound to be unique.
            models.UniqueConstraint(
                fields=["conversation", "client_id"], condition=Q(origin="device"), name="utterance_id_once"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "speaking", "spoken", "failed", "interrupted"]),
                name="utterance_state",
            ),
            models.CheckConstraint(condition=Q(origin__in=["device", "greeting"]), name="utterance_origin"),
            models.CheckConstraint(
                condition=Q(source__in=["", "live", "cache", "backup", "offline"]), name="utterance_source"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.state} {self.received_at:%Y-%m-%d %H:%M:%S}"


class PhraseQuerySet(models.QuerySet["Phrase"]):
    def for_language(self, language: str) -> "PhraseQuerySet":
        """The phrases of a language; a patient's "de-AT" is served by "de"."""
        return self.filter(language=language.partition("-")[0].lower())


class Phrase(models.Model):
    """Something said so often that its sound is kept. A greeting may hold `{patient_name}` and `{ai_name}`."""

    class Kind(models.TextChoices):
        GREETING = "greeting"
        COMMON = "common"

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.COMMON)
    language = models.CharField(max_length=10, default="en", help_text="ISO 639-1, for example en or de.")
    text = models.CharField(max_length=300)

    objects = PhraseQuerySet.as_manager()

    class Meta:
        ordering = ("language", "kind", "text")
        constraints = [
            models.UniqueConstraint(fields=["language", "text"], name="phrase_once"),
            models.UniqueConstraint(
                fields=["language"], condition=Q(kind="greeting"), name="phrase_one_greeting_per_language"
            ),
            models.CheckConstraint(condition=Q(kind__in=["greeting", "common"]), name="phrase_kind"),
        ]

    def __str__(self) -> str:
        return self.text
