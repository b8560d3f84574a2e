"""Conversations, utterances, phrases, the clips of the phrase cache, and the lexicon."""

import uuid
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum

from django.conf import settings
from django.db import models, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now
from django.utils import timezone

from tts.queue_reason import QueueReason
from tts.states import Origin, Source, UtteranceState
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.core import languages
from voicecare.patients.models import Clinic, Device, Patient, Voice

ABANDONED_AFTER = timedelta(minutes=30)  # docs/protocol.md: a conversation that is not resumed ends


def _choices(values: type[StrEnum], **labels: str) -> list[tuple[str, str]]:
    """Return the choices of a column with these values.

    A value without a label of its own is labelled as in TextChoices.
    """
    return [(value.value, labels.get(value.value, value.value.title())) for value in values]


STATE_CHOICES = _choices(UtteranceState, queued="Waiting for credits")
ORIGIN_CHOICES = _choices(Origin, holding="Hold message")
SOURCE_CHOICES = _choices(Source, cache="Phrase cache", backup="Backup voice", offline="Offline voice")
QUEUE_REASON_CHOICES = _choices(
    QueueReason, busy="Provider busy", quota="Credits exhausted", no_device="No device connected"
)


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def unfinished(self) -> "ConversationQuerySet":
        """Return the conversations that have not ended."""
        return self.filter(ended_at=None)

    def resumable(self) -> "ConversationQuerySet":
        """Return the unfinished conversations that had a connection within ABANDONED_AFTER.

        An older conversation is abandoned. It is left out even if the periodic task has not ended it yet.
        """
        return self.unfinished().filter(seen_at__gte=Now() - ABANDONED_AFTER)

    def abandoned(self) -> "ConversationQuerySet":
        """Return the unfinished conversations whose last connection was more than ABANDONED_AFTER ago."""
        return self.unfinished().filter(seen_at__lt=Now() - ABANDONED_AFTER)

    def add_characters(self, new: Mapping[uuid.UUID, int]) -> None:
        """Add billed characters to conversations, by id, in one statement.

        The addition is done in the database, so that concurrent calls do not overwrite each other.
        """
        if new:
            added = Case(*(When(pk=key, then=Value(characters)) for key, characters in new.items()), default=Value(0))
            self.filter(pk__in=new).update(tts_characters_used=F("tts_characters_used") + added)


class Conversation(models.Model):
    """A conversation with one patient. It has ended when `ended_at` is set.

    A conversation keeps its voice to the end, unless the voice cannot be used any longer.
    """

    class Initiated(models.TextChoices):
        DEVICE = "device"
        SERVER = "server"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT, related_name="conversations")
    device = models.ForeignKey(Device, null=True, on_delete=models.SET_NULL, related_name="conversations")
    voice = models.ForeignKey(
        Voice,
        null=True,
        on_delete=models.PROTECT,
        related_name="conversations",
        help_text="Empty: the provider has no usable voice, and the offline voice speaks.",
    )
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
        db_table = "conversations"  # the product owner chose this name
        ordering = ("-started_at",)
        indexes = [
            models.Index(fields=["started_at"], name="conversation_started"),  # the list of the admin
            models.Index(fields=["seen_at"], condition=Q(ended_at=None), name="conversation_unfinished"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(voice_source__in=["cloned", "selected", "default"]), name="conversation_voice_source"
            ),
            models.CheckConstraint(
                condition=Q(voice__isnull=False) | Q(voice_source="default"), name="conversation_own_voice_exists"
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
    def update_in_order(self, **changes: object) -> None:
        """Update these rows, locked in the order of their ids. Two statements in a transaction.

        A single UPDATE locks rows in any order. So it could deadlock with another transaction that changes the same
        rows.
        """
        with transaction.atomic():
            keys = list(self.select_for_update().order_by("pk").values_list("pk", flat=True))
            if keys:
                self.model.objects.filter(pk__in=keys).update(**changes)

    def interrupt_unfinished(self) -> None:
        """Mark speech that a killed process has not finished as interrupted.

        Speech that the server started is left out.
        """
        unfinished = self.filter(state__in=[UtteranceState.WAITING, UtteranceState.SPEAKING])
        unfinished.exclude(origin=Origin.SERVER).update_in_order(state=UtteranceState.INTERRUPTED)


class Utterance(models.Model):
    """One speech and its result. The waiting rows are also the outbox (`tts.outbox.store`).

    The states are waiting -> speaking -> spoken -> heard. `heard` means that a device has acknowledged the speech,
    `queued` that the speech waits for the quota. While `owner` (a connection) holds the lease, no other connection may
    speak the text.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(
        Conversation,
        null=True,
        on_delete=models.PROTECT,
        related_name="utterances",
        help_text="Conversation of the request. For speech that the server starts, the conversation of its playback.",
    )
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT, related_name="utterances")
    client_speech_id = models.CharField(
        "speech id", max_length=64, blank=True, db_column="client_id", help_text="The id on the WebSocket."
    )
    origin = models.CharField(max_length=8, choices=ORIGIN_CHOICES)
    text = models.TextField()
    state = models.CharField(max_length=11, choices=STATE_CHOICES)
    source = models.CharField(max_length=7, choices=SOURCE_CHOICES, blank=True, help_text="Source of the audio.")
    code = models.CharField(max_length=32, blank=True, help_text="Error code of a failure.")
    queue_reason = models.CharField(
        max_length=9,
        choices=QUEUE_REASON_CHOICES,
        blank=True,
        default="",
        db_default="",
        help_text="Why the speech had to wait before it was played. Empty if it did not wait.",
    )
    characters = models.PositiveIntegerField(default=0)
    bytes_sent = models.PositiveBigIntegerField(default=0)
    first_chunk_ms = models.FloatField(
        "time to first audio (ms)", null=True, help_text="From receiving the text to sending the first audio."
    )
    received_at = models.DateTimeField(default=timezone.now)
    spoken_at = models.DateTimeField(null=True)
    heard_at = models.DateTimeField(null=True)
    played_ms = models.PositiveIntegerField(
        "heard (ms)", null=True, help_text="How much the device has played, by its own reports."
    )
    doubted_attempt = models.PositiveIntegerField(
        "claim with a doubtful acknowledgement",
        null=True,
        help_text="The device acknowledged this claim before it can have played it. The message is repeated once.",
    )
    expires_at = models.DateTimeField(null=True, help_text="Expiry time. Later it is not spoken.")
    owner = models.CharField(max_length=36, blank=True, help_text="Connection that has claimed the utterance.")
    lease_until = models.DateTimeField(
        "lease expires at", null=True, help_text="Renewed while the owner's connection is alive."
    )
    played_by = models.CharField(
        max_length=36,
        blank=True,
        default="",
        db_default="",
        help_text="Connection that has played it last. It is not repeated there.",
    )
    attempts = models.PositiveIntegerField("claims", default=0, help_text="How often a connection has claimed it.")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="User who requested it.",
    )
    idempotency_key = models.CharField(max_length=255, blank=True)
    request_digest = models.CharField(
        max_length=64, blank=True, help_text="Digest of the request body that came with the idempotency key."
    )

    objects = UtteranceQuerySet.as_manager()

    class Meta:
        verbose_name = "message"
        ordering = ("-received_at",)
        indexes = [
            models.Index(
                fields=["patient", "received_at"],
                condition=Q(origin="server", state__in=["waiting", "queued", "speaking", "spoken"])
                | Q(origin="device", state="queued"),
                name="utterance_outbox",
            ),
            models.Index(fields=["received_at"], name="utterance_received"),  # the list of the admin
            models.Index(fields=["received_at"], condition=~Q(text=""), name="utterance_with_text"),  # prune_texts
        ]
        constraints = [
            # Only for speech of the device: a resumed conversation may greet again with the same id.
            models.UniqueConstraint(
                fields=["conversation", "client_speech_id"], condition=Q(origin="device"), name="utterance_id_once"
            ),
            models.UniqueConstraint(
                fields=["author", "idempotency_key"], condition=~Q(idempotency_key=""), name="utterance_idempotency"
            ),
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "waiting",
                        "queued",
                        "speaking",
                        "spoken",
                        "heard",
                        "failed",
                        "expired",
                        "interrupted",
                    ]
                ),
                name="utterance_state",
            ),
            models.CheckConstraint(
                condition=Q(origin__in=["device", "greeting", "server", "holding"]), name="utterance_origin"
            ),
            models.CheckConstraint(
                condition=Q(origin="server") | Q(conversation__isnull=False), name="utterance_conversation"
            ),
            models.CheckConstraint(
                condition=Q(source__in=["", "live", "cache", "backup", "offline"]), name="utterance_source"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.state} {self.received_at:%Y-%m-%d %H:%M:%S}"


class PhraseQuerySet(models.QuerySet["Phrase"]):
    def for_language(self, language: str) -> "PhraseQuerySet":
        """Return the phrases for a patient's language. "de-AT" has the phrases of "de", and "nb" those of "no"."""
        return self.filter(language=languages.code_of(language))


class Phrase(models.Model):
    """A phrase that is spoken often, so that its audio is kept in the phrase cache.

    A greeting may contain `{patient_name}` and `{ai_name}`. The hold message is spoken once in a conversation, when
    speech has to wait for the quota.
    """

    class Kind(models.TextChoices):
        GREETING = "greeting"
        COMMON = "common"
        HOLD_MESSAGE = "holding", "Hold message"

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.COMMON)
    language = models.CharField(
        max_length=languages.MAX_LENGTH,
        default=languages.DEFAULT,
        help_text="The language of its listeners.",
    )
    text = models.CharField(max_length=300)

    objects = PhraseQuerySet.as_manager()

    class Meta:
        ordering = ("language", "kind", "text")
        constraints = [
            models.UniqueConstraint(fields=["language", "text"], name="phrase_once"),
            models.UniqueConstraint(
                fields=["language"], condition=Q(kind="greeting"), name="phrase_one_greeting_per_language"
            ),
            models.UniqueConstraint(
                fields=["language"], condition=Q(kind="holding"), name="phrase_one_holding_per_language"
            ),
            models.CheckConstraint(condition=Q(kind__in=["greeting", "common", "holding"]), name="phrase_kind"),
        ]

    def __str__(self) -> str:
        return self.text


class Clip(models.Model):
    """The audio of one text in one voice and format, which the phrase cache keeps (`tts.cache.phrase_cache`).

    The row has its expiry time and use. The audio is in the store under `digest`, which reveals neither a name nor a
    text. A row with the size 0 has no audio yet.
    """

    id = models.BigAutoField(primary_key=True)
    digest = models.CharField(max_length=64, unique=True)
    voice = models.ForeignKey(Voice, on_delete=models.CASCADE, related_name="clips")
    phrase = models.ForeignKey(Phrase, null=True, on_delete=models.SET_NULL, related_name="clips")
    patient = models.ForeignKey(
        Patient,
        null=True,
        on_delete=models.CASCADE,
        related_name="clips",
        help_text="Set for a greeting, which names the patient.",
    )
    language = models.CharField(max_length=10)
    speed = models.FloatField()
    format = models.CharField(max_length=20, choices=[(name, name) for name in DEVICE_FORMATS])
    characters = models.PositiveIntegerField(help_text="Characters that one more request would bill.")
    size = models.PositiveIntegerField(help_text="Bytes of audio.")
    created_at = models.DateTimeField(default=timezone.now, db_column="made_at")
    expires_at = models.DateTimeField(db_index=True)
    hits = models.PositiveBigIntegerField(default=0)
    used_at = models.DateTimeField("last used at", null=True)

    class Meta:
        verbose_name = verbose_name_plural = "cached audio"
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.digest[:12]


class LexiconEntryQuerySet(models.QuerySet["LexiconEntry"]):
    def in_order(self) -> "LexiconEntryQuerySet":
        """Return the entries in the order in which `LexiconLayer` takes equal ones: those of one language first."""
        return self.order_by("-language", "pk")

    def for_language(self, language: str) -> "LexiconEntryQuerySet":
        """Return the entries for texts in this language, which is a code without a region, in order."""
        return self.in_order().filter(language__in=("", language))

    def duplicates_of(self, entry: "LexiconEntry") -> "LexiconEntryQuerySet":
        """Return the other entries for the same word in the same language, to everybody, this clinic or this patient.

        Two words that differ in upper and lower case only are the same, unless one of the entries has `match_case`.
        """
        same = Q(written=entry.written)
        if not entry.match_case:
            same |= Q(written__iexact=entry.written, match_case=False)
        scope = {"language": entry.language, "clinic": entry.clinic_id, "patient": entry.patient_id}
        return self.filter(same, **scope).exclude(pk=entry.pk)


class LexiconEntry(models.Model):
    """How a word or a name is said: to everybody, to the patients of a clinic, or to one patient.

    Of two entries with the same written form, that of the patient is used, then that of the clinic.
    """

    id = models.BigAutoField(primary_key=True)
    written = models.CharField(
        "written form", max_length=60, help_text="As it is written in texts: whole words, such as Metformin or Siobhan."
    )
    spoken = models.CharField(
        "spoken form", max_length=100, help_text="As it would be written to be read aloud right, such as Shivawn."
    )
    language = models.CharField(
        max_length=languages.MAX_LENGTH,
        blank=True,
        help_text="Of the texts in which it is said so. Empty: of all texts.",
    )
    match_case = models.BooleanField(
        default=False, help_text="Only where upper and lower case are the same, such as AIDS, not aids."
    )
    clinic = models.ForeignKey(
        Clinic,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="lexicon_entries",
        help_text="Only for the patients of this clinic.",
    )
    patient = models.ForeignKey(
        Patient,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="lexicon_entries",
        help_text="Only for this patient. Empty, without a clinic: for everybody.",
    )
    note = models.CharField(max_length=200, blank=True)
    changed_at = models.DateTimeField(auto_now=True)

    objects = LexiconEntryQuerySet.as_manager()

    class Meta:
        verbose_name = "pronunciation"
        ordering = ("written", "pk")
        constraints = [
            models.CheckConstraint(condition=Q(clinic=None) | Q(patient=None), name="lexicon_one_scope"),
            models.UniqueConstraint(
                fields=["written", "language"], condition=Q(clinic=None, patient=None), name="lexicon_once"
            ),
            models.UniqueConstraint(
                fields=["clinic", "written", "language"],
                condition=Q(clinic__isnull=False),
                name="lexicon_once_in_a_clinic",
            ),
            models.UniqueConstraint(
                fields=["patient", "written", "language"],
                condition=Q(patient__isnull=False),
                name="lexicon_once_for_a_patient",
            ),
        ]

    def __str__(self) -> str:
        return self.written
