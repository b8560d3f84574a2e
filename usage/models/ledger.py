"""What was requested and billed: attempts, their daily totals, and the comparison with the provider's figures.

`usage/ledger/events.py` writes the rows that hold billed usage. They are never edited by hand.
"""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone

NO_ID = uuid.UUID(int=0)  # means "no patient" or "no voice" in a unique key, whose columns cannot be null
REGION_LENGTH = 64


class UsageEvent(models.Model):
    """One attempt to produce the audio of one segment.

    Audio from the provider counts as `characters` and `credits`, other audio as `saved_characters`. Ids are plain UUIDs
    instead of foreign keys, because these rows outlive the patient, the conversation and the voice.
    """

    class Kind(models.TextChoices):
        LIVE = "live"
        RETRY = "retry"
        BACKUP = "backup", "Backup voice"
        CACHE = "cache", "Phrase cache"
        OFFLINE = "offline", "Offline voice"
        PROBE = "probe", "Health probe"
        WARM = "warm", "Pre-generated"
        PREVIEW = "preview", "Preview by a clinician"
        HEDGE = "hedge", "Second request"
        TRIAL = "trial", "Trial of a model"

    class Outcome(models.TextChoices):
        UNKNOWN = "unknown", "Unconfirmed"
        COMPLETED = "completed"
        FAILED = "failed"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    source = models.UUIDField(help_text="Id of the utterance, or of the cache fill or probe.")
    segment = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    conversation = models.UUIDField(null=True, db_index=True)
    patient = models.UUIDField(null=True)
    voice = models.UUIDField(null=True)
    model = models.CharField(max_length=64, blank=True)
    kind = models.CharField(max_length=8, choices=Kind)
    outcome = models.CharField(max_length=10, choices=Outcome)
    code = models.CharField(max_length=64, blank=True, help_text="The error code of the provider.")
    requested_characters = models.PositiveIntegerField(db_column="asked", help_text="Characters in the request.")
    characters = models.PositiveIntegerField(
        default=0, help_text="Characters sent, counted once the 2xx headers have arrived."
    )
    credits = models.PositiveIntegerField(default=0, help_text="Credits billed by the provider.")
    saved_characters = models.PositiveIntegerField(
        db_column="saved", default=0, help_text="Characters spoken from the cache or in the offline voice."
    )
    request_id = models.CharField(max_length=128, blank=True)
    region = models.CharField(
        max_length=REGION_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="Where the provider has handled the request, as its response says.",
    )
    first_byte_ms = models.FloatField(null=True, help_text="Milliseconds from the request to its first audio.")
    first_chunk_ms = models.FloatField(
        null=True, help_text="Time to first audio, in milliseconds, if a speech began with this attempt."
    )
    text_digest = models.CharField(
        max_length=32,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="Keyed digest of the text, to count repeated texts. Cleared after a month.",
    )
    started_at = models.DateTimeField(db_column="at", default=timezone.now, db_index=True)

    class Meta:
        ordering = ("-started_at",)
        indexes = [
            models.Index(fields=["started_at"], condition=~Q(text_digest=""), name="usage_with_digest"),
            models.Index(fields=["text_digest", "started_at"], condition=~Q(text_digest=""), name="usage_of_text"),
            models.Index(fields=["started_at"], condition=Q(outcome="unknown"), name="usage_unknown"),
            models.Index(fields=["started_at"], condition=Q(outcome="failed"), name="usage_failed"),
            models.Index(fields=["request_id"], condition=~Q(request_id=""), name="usage_request_id"),
            # With the time, because the latest events of one id are read. An index without it would sort all of them.
            models.Index(fields=["patient", "started_at"], name="usage_of_patient"),
            models.Index(fields=["voice", "started_at"], name="usage_of_voice"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["source", "segment", "attempt"], name="usage_attempt_once"),
            models.CheckConstraint(
                condition=Q(outcome__in=["unknown", "completed", "failed", "cancelled"]), name="usage_outcome"
            ),
            models.CheckConstraint(
                condition=Q(
                    kind__in=[
                        *("live", "retry", "backup", "cache", "offline", "probe", "warm", "preview", "hedge"),
                        "trial",
                    ]
                ),
                name="usage_kind",
            ),
            models.CheckConstraint(
                condition=~Q(outcome="unknown") | Q(characters=0), name="usage_unknown_is_not_counted"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.started_at:%Y-%m-%d %H:%M:%S}"


class DailyUsage(models.Model):
    """Totals of the events of one day, patient, voice, model and kind. `usage/ledger/rollup.py` maintains them.

    Days are in USAGE_TIME_ZONE. The `chunk_N` fields are a histogram of the time to first audio: `chunk_N` counts the
    speeches with at most N ms that do not belong to a smaller bucket.
    """

    id = models.BigAutoField(primary_key=True)
    day = models.DateField()
    patient = models.UUIDField(default=NO_ID)
    voice = models.UUIDField(default=NO_ID)
    model = models.CharField(max_length=64, blank=True)
    kind = models.CharField(max_length=8, choices=UsageEvent.Kind)
    characters = models.BigIntegerField(default=0)
    credits = models.BigIntegerField(default=0)
    saved_characters = models.BigIntegerField(db_column="saved", default=0)
    events = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    chunk_50 = models.BigIntegerField(default=0)
    chunk_100 = models.BigIntegerField(default=0)
    chunk_150 = models.BigIntegerField(default=0)
    chunk_200 = models.BigIntegerField(default=0)
    chunk_300 = models.BigIntegerField(default=0)
    chunk_400 = models.BigIntegerField(default=0)
    chunk_500 = models.BigIntegerField(default=0)
    chunk_750 = models.BigIntegerField(default=0)
    chunk_1000 = models.BigIntegerField(default=0)
    chunk_1500 = models.BigIntegerField(default=0)
    chunk_2000 = models.BigIntegerField(default=0)
    chunk_3000 = models.BigIntegerField(default=0)
    chunk_over = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "daily usage"
        ordering = ("-day", "kind")
        indexes = [
            models.Index(fields=["patient", "day"], name="daily_usage_of_patient"),
            models.Index(fields=["voice", "day"], name="daily_usage_of_voice"),
            # The rows of a day lie together. PostgreSQL knows that only of an index with one column, and without one it
            # reads the whole table for the sums of a month.
            models.Index(fields=["day"], name="daily_usage_of_day"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["day", "patient", "voice", "model", "kind"], name="daily_usage_key")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.day}"


class Reconciliation(models.Model):
    """The ledger of one day compared with the provider's figures, and the outcome of the day's unknown attempts.

    The provider's figures are null until the day is over. They stay null if they could not be read. `usage_call` is the
    call that brought the provider's sums, `request_call` the one that listed single requests. Costs are those of the
    day in UTC, and null unless the workspace is billed in money.
    """

    class UsageCall(models.TextChoices):
        CREDITS = "credits", "usage in credits"
        COST = "cost", "cost in money"
        DEPRECATED = "deprecated", "older statistics, which the provider will end"

    class RequestCall(models.TextChoices):
        HISTORY = "history", "the history"
        REQUESTS = "requests", "the list of requests"

    id = models.BigAutoField(primary_key=True)
    day = models.DateField(unique=True)
    checked_at = models.DateTimeField(db_column="at", null=True, help_text="When the day was last checked.")
    compared_at = models.DateTimeField(null=True, help_text="When the day was last compared after its end.")
    lease_until = models.DateTimeField(
        db_column="busy_until", null=True, editable=False, help_text="Lease expiry. One process at a time checks a day."
    )
    characters = models.BigIntegerField(default=0, help_text="Characters of the day in the ledger.")
    credits = models.BigIntegerField(default=0)
    provider_characters = models.BigIntegerField(
        null=True, help_text="Characters of the day in the provider's figures."
    )
    provider_credits = models.BigIntegerField(null=True)
    provider_cost = models.DecimalField(
        max_digits=14, decimal_places=2, null=True, help_text="What the provider charged for the day in UTC."
    )
    cost = models.DecimalField(
        max_digits=14, decimal_places=2, null=True, help_text="Cost of the day in UTC, from the ledger and our prices."
    )
    currency = models.CharField(max_length=3, blank=True, db_default="", help_text="The currency of the costs.")
    usage_call = models.CharField(
        "read from",
        max_length=10,
        choices=UsageCall,
        blank=True,
        db_default="",
        help_text="The call of the provider that has its sums.",
    )
    request_call = models.CharField(
        "requests from",
        max_length=10,
        choices=RequestCall,
        blank=True,
        db_default="",
        help_text="The call of the provider that lists single requests.",
    )
    unexplained_credits = models.BigIntegerField(
        null=True, help_text="Credits of the difference without an explanation."
    )
    unexplained_characters = models.BigIntegerField(
        db_column="unexplained", null=True, help_text="Characters of the difference without an explanation."
    )
    external_characters = models.BigIntegerField(
        db_column="others",
        default=0,
        help_text="Characters in the provider's history that this server did not request.",
    )
    billed_attempts = models.PositiveIntegerField(
        db_column="settled", default=0, help_text="Unknown attempts that the provider's history shows as billed."
    )
    unbilled_attempts = models.PositiveIntegerField(
        db_column="absent",
        default=0,
        help_text="Unknown attempts that are not in the provider's history and were not billed.",
    )
    unknown_attempts = models.PositiveIntegerField(
        db_column="unknown", default=0, help_text="Attempts that are still unknown."
    )
    unknown_characters = models.BigIntegerField(default=0)
    counter = models.BigIntegerField(
        null=True, help_text="Credits used in the provider's billing period at `counter_at`."
    )
    counter_at = models.DateTimeField(null=True)
    counter_resets_at = models.DateTimeField(null=True)
    explanation = models.TextField(blank=True)

    class Meta:
        ordering = ("-day",)

    def __str__(self) -> str:
        return f"{self.day}"
