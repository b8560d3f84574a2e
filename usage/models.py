"""Usage of the speech provider, the provider's state, and incidents.

`usage/ledger/events.py` writes the rows that hold billed usage. They are never edited by hand. Some fields keep an
older column name (`db_column`), because old and new processes run at the same time during a deploy.
"""

import uuid

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

NO_ID = uuid.UUID(int=0)  # means "no patient" or "no voice" in a unique key, whose columns cannot be null


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
    first_byte_ms = models.FloatField(null=True, help_text="Milliseconds from the request to its first audio.")
    first_chunk_ms = models.FloatField(
        null=True, help_text="Time to first audio, in milliseconds, if a speech began with this attempt."
    )
    started_at = models.DateTimeField(db_column="at", default=timezone.now, db_index=True)

    class Meta:
        ordering = ("-started_at",)
        indexes = [
            models.Index(fields=["started_at"], condition=Q(outcome="unknown"), name="usage_unknown"),
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
                condition=Q(kind__in=["live", "retry", "backup", "cache", "offline", "probe", "warm", "preview"]),
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
        ]
        constraints = [
            models.UniqueConstraint(fields=["day", "patient", "voice", "model", "kind"], name="daily_usage_key")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.day}"


class Price(models.Model):
    """What 1,000 credits of a model cost from a day on, in PRICE_CURRENCY, until the next price of the same model.

    Days are in USAGE_TIME_ZONE. `usage/prices.py` says which price a day's usage has.
    """

    id = models.BigAutoField(primary_key=True)
    model = models.CharField(
        max_length=64,
        blank=True,
        help_text="Id of a model at the provider, such as eleven_flash_v2_5. Empty: all other models.",
    )
    valid_from = models.DateField(help_text="The first day with this price. Usage of earlier days keeps its price.")
    per_1000_credits = models.DecimalField(
        "price of 1,000 credits",
        max_digits=12,
        decimal_places=6,
        validators=[MinValueValidator(0, "A price cannot be negative. Zero means free.")],
    )

    class Meta:
        ordering = ("model", "-valid_from")
        constraints = [
            models.UniqueConstraint(
                fields=["model", "valid_from"],
                name="price_once_a_day",
                violation_error_message="This model already has a price from this day on. Change that one.",
            ),
            models.CheckConstraint(condition=Q(per_1000_credits__gte=0), name="price_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.model or 'all models'} from {self.valid_from}"


class StatementMail(models.Model):
    """The mail about the statement of one month. The row is created when it is first sent."""

    month = models.DateField(primary_key=True, help_text="The first day of the month.")
    sending_until = models.DateTimeField(
        null=True, help_text="Lease expiry. One process at a time sends the mail, and after a failure it is sent again."
    )
    sent_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class BudgetMonth(models.Model):
    """Characters that a patient with a monthly budget has used, and characters that running speeches have reserved.

    `used` is the sum of the patient's live, retry and backup events of that month in USAGE_TIME_ZONE.
    """

    id = models.BigAutoField(primary_key=True)
    patient = models.UUIDField()
    month = models.DateField(help_text="The first day of the month.")
    reserved = models.PositiveBigIntegerField(default=0)
    used = models.PositiveBigIntegerField(default=0)
    budget_when_refused = models.PositiveBigIntegerField(
        db_column="refused_under", null=True, help_text="The budget when a request last exceeded it."
    )
    updated_at = models.DateTimeField(
        db_column="touched_at",
        default=timezone.now,
        help_text="When a reservation was last made or released, or usage was recorded.",
    )
    checked = models.BooleanField(
        default=False, db_default=False, help_text="Whether `used` was compared with the ledger since `updated_at`."
    )

    class Meta:
        ordering = ("-month",)
        indexes = [models.Index(fields=["updated_at"], condition=Q(checked=False), name="budget_unchecked")]
        constraints = [models.UniqueConstraint(fields=["patient", "month"], name="budget_month_key")]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class Heartbeat(models.Model):
    """The last heartbeat of a background process: `worker` or `beat`."""

    name = models.CharField(max_length=8, primary_key=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class TaskFailure(models.Model):
    """A periodic task whose last run failed, and the number of its failed runs since its last success."""

    name = models.CharField(max_length=64, primary_key=True)
    failures = models.PositiveIntegerField(default=0)
    failed_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.name


class Reconciliation(models.Model):
    """The ledger of one day compared with the provider's figures, and the outcome of the day's unknown attempts.

    The provider's figures are null until the day is over. They stay null if they could not be read.
    """

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


class ProviderState(models.Model):
    """The provider's state, shared by all processes in one row.

    While the circuit is open, speech does not wait for the provider. While the quota is exhausted, no request is sent.
    """

    class Circuit(models.TextChoices):
        CLOSED = "closed", "Reachable"
        OPEN = "open", "Unreachable"

    class Quota(models.TextChoices):
        AVAILABLE = "available"
        EXHAUSTED = "spent"

    class Access(models.TextChoices):
        GRANTED = "granted", "Accepted"
        KEY = "key", "Key refused"
        PERMISSION = "permission", "Plan or permission refused"

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    circuit = models.CharField("provider", max_length=6, choices=Circuit, default=Circuit.CLOSED)
    changed_at = models.DateTimeField(default=timezone.now, help_text="When the circuit was opened or closed.")
    probes = models.PositiveIntegerField(default=0, help_text="Failed health probes since the circuit opened.")
    next_probe_at = models.DateTimeField(null=True, blank=True)
    access = models.CharField(
        "API key",
        max_length=10,
        choices=Access,
        default=Access.GRANTED,
        db_default=Access.GRANTED,
        help_text="Whether the provider accepts the API key and lets it speak.",
    )
    access_changed_at = models.DateTimeField(
        null=True, blank=True, help_text="When the API key was last refused, or accepted after a refusal."
    )
    quota = models.CharField(max_length=9, choices=Quota, default=Quota.AVAILABLE)
    quota_changed_at = models.DateTimeField(
        null=True, blank=True, help_text="When the quota was last exhausted or restored."
    )
    quota_needed = models.PositiveBigIntegerField(
        default=0, help_text="Characters of the request that exceeded the quota."
    )
    quota_refusals = models.PositiveIntegerField(
        default=0, help_text="Consecutive refusals although the subscription showed enough credits."
    )
    quota_limit = models.PositiveBigIntegerField(null=True, blank=True, help_text="Credits of this billing period.")
    quota_used = models.PositiveBigIntegerField(null=True, blank=True, help_text="Credits used in this billing period.")
    quota_resets_at = models.DateTimeField(null=True, blank=True)
    polled_at = models.DateTimeField(null=True, blank=True, help_text="When the subscription was last read.")
    next_poll_at = models.DateTimeField(null=True, blank=True)
    concurrency_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="The provider's concurrency limit."
    )
    plan_concurrency_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="The concurrency limit of the plan when the subscription was last read."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(id=1), name="provider_state_is_one_row"),
            models.CheckConstraint(condition=Q(circuit__in=["closed", "open"]), name="provider_circuit"),
            models.CheckConstraint(condition=Q(quota__in=["available", "spent"]), name="provider_quota"),
            models.CheckConstraint(condition=Q(access__in=["granted", "key", "permission"]), name="provider_access"),
        ]

    def __str__(self) -> str:
        return f"circuit {self.circuit}, quota {self.quota}"

    @property
    def quota_remaining(self) -> int | None:
        """Credits that remained when the subscription was last read. None if it was never read or without a limit."""
        if self.quota_limit is None or self.quota_used is None:
            return None
        return max(self.quota_limit - self.quota_used, 0)


class Incident(models.Model):
    """A problem that administrators must know about, from its beginning to its end.

    At most one open row exists for each `kind` and `key`.
    """

    class Kind(models.TextChoices):
        PROVIDER_DOWN = "provider_down", "the speech provider is down"
        ACCESS = "access", "the speech provider rejects our key, plan or permissions"
        REQUEST = "request", "the speech provider rejects our requests (software defect)"
        VOICE = "voice", "a voice is unavailable"
        DEFAULT_VOICE = "default_voice", "another voice has become the default voice"
        NO_USABLE_VOICE = "no_usable_voice", "the speech provider has no usable voice"
        VOICE_ENDING = "voice_ending", "the provider will end voices in use"
        NO_VOICE = "no_voice", "a patient heard nothing"
        QUOTA = "quota", "credits exhausted"
        VOICE_SLOTS = "voice_slots", "voice slots nearly full"
        QUOTA_LOW = "quota_low", "credits running low"
        FORECAST = "forecast", "credits forecast to run out"
        SLOW = "slow", "high latency"
        BUDGET = "budget", "a patient's monthly budget is used up"
        DRIFT = "drift", "the ledger and the provider's figures differ"
        SILENT = "silent", "worker or beat not running"
        ALERTS = "alerts", "alerts cannot be sent"
        TASK = "task", "a periodic task keeps failing"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=16, choices=Kind)
    key = models.CharField(
        max_length=64,
        blank=True,
        help_text="Distinguishes open incidents of one kind, for example by voice or patient.",
    )
    detail = models.CharField(max_length=300, blank=True)
    opened_at = models.DateTimeField(default=timezone.now)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    opening_sent_at = models.DateTimeField(
        null=True, blank=True, help_text="When the alert about the opening was sent."
    )
    resolution_sent_at = models.DateTimeField(
        null=True, blank=True, help_text="When the alert about the resolution was sent."
    )
    sending_until = models.DateTimeField(
        null=True, editable=False, help_text="Lease expiry, and after a failure the time of the next attempt."
    )
    notified_channels = models.CharField(
        db_column="sending_told",
        max_length=16,
        blank=True,
        editable=False,
        help_text="Channels that have already received this notification.",
    )
    sending_failures = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("-opened_at",)
        indexes = [
            models.Index(fields=["opened_at"], name="incident_opened"),
            models.Index(fields=["resolved_at"], name="incident_resolved"),
            models.Index(fields=["key", "opened_at"], name="incident_key"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["kind", "key"], condition=Q(resolved_at=None), name="incident_open_once"),
            models.CheckConstraint(
                condition=Q(
                    kind__in=[
                        "provider_down",
                        "access",
                        "request",
                        "voice",
                        "default_voice",
                        "no_usable_voice",
                        "voice_ending",
                        "no_voice",
                        "quota",
                        "voice_slots",
                        "quota_low",
                        "forecast",
                        "slow",
                        "budget",
                        "drift",
                        "silent",
                        "alerts",
                        "task",
                    ]
                ),
                name="incident_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} since {self.opened_at:%Y-%m-%d %H:%M}"
