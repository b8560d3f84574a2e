"""What the provider was asked for and what it bills, and what administrators must know of it.

Rows of money are written by `usage/ledger/events.py` and edited by nobody.
"""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone

NO_ID = uuid.UUID(int=0)  # stands for "none" in a key, whose columns are never null


class UsageEvent(models.Model):
    """One attempt to make sound, from the provider (`characters`, `credits`) or without it (`saved`).

    Plain UUIDs instead of foreign keys: money rows outlive the patient, the conversation and the voice they speak of.
    """

    class Kind(models.TextChoices):
        LIVE = "live"
        RETRY = "retry"
        BACKUP = "backup"
        CACHE = "cache"
        OFFLINE = "offline"
        PROBE = "probe", "a look whether the provider is back"
        WARM = "warm", "made ahead for the phrase cache"
        PREVIEW = "preview", "heard by a clinician"

    class Outcome(models.TextChoices):
        UNKNOWN = "unknown", "no answer seen"
        COMPLETED = "completed"
        FAILED = "failed"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    source = models.UUIDField(help_text="The utterance that wanted the sound.")
    segment = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    conversation = models.UUIDField(null=True, db_index=True)
    patient = models.UUIDField(null=True, db_index=True)
    voice = models.UUIDField(null=True)
    model = models.CharField(max_length=64, blank=True)
    kind = models.CharField(max_length=8, choices=Kind)
    outcome = models.CharField(max_length=10, choices=Outcome)
    code = models.CharField(max_length=64, blank=True, help_text="The provider's word for what went wrong.")
    requested_characters = models.PositiveIntegerField(db_column="asked", help_text="Characters in the request.")
    characters = models.PositiveIntegerField(default=0, help_text="Characters of requests whose 2xx headers came.")
    credits = models.PositiveIntegerField(default=0, help_text="What the provider says it bills.")
    saved_characters = models.PositiveIntegerField(
        db_column="saved", default=0, help_text="Characters spoken without asking the provider."
    )
    request_id = models.CharField(max_length=128, blank=True)
    first_byte_ms = models.FloatField(null=True, help_text="From the request to its first audio.")
    first_chunk_ms = models.FloatField(
        null=True, help_text="Where a speech began with it: from its turn to the first frame on the device."
    )
    started_at = models.DateTimeField(db_column="at", default=timezone.now, db_index=True)

    class Meta:
        ordering = ("-started_at",)
        indexes = [models.Index(fields=["started_at"], condition=Q(outcome="unknown"), name="usage_unknown")]
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
    """The sum of a day's events of one patient, voice, model and kind (`usage/ledger/rollup.py` keeps it up).

    A day is one in USAGE_TIME_ZONE. `chunk_N`: how many speeches had their first sound within N ms, and not within the
    next smaller one.
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
        indexes = [models.Index(fields=["patient", "day"], name="daily_usage_of_patient")]
        constraints = [
            models.UniqueConstraint(fields=["day", "patient", "voice", "model", "kind"], name="daily_usage_key")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.day}"


class BudgetMonth(models.Model):
    """What a patient with a monthly budget has used of it, and what speeches on their way have reserved. Characters.

    `used` is what was spoken to them: the sum of their live, retry and backup events of that month in USAGE_TIME_ZONE.
    """

    id = models.BigAutoField(primary_key=True)
    patient = models.UUIDField()
    month = models.DateField(help_text="Its first day.")
    reserved = models.PositiveBigIntegerField(default=0)
    used = models.PositiveBigIntegerField(default=0)
    budget_when_refused = models.PositiveBigIntegerField(
        db_column="refused_under", null=True, help_text="The budget when something last did not fit."
    )
    updated_at = models.DateTimeField(
        db_column="touched_at", default=timezone.now, help_text="When a reservation was made or given back."
    )

    class Meta:
        ordering = ("-month",)
        constraints = [models.UniqueConstraint(fields=["patient", "month"], name="budget_month_key")]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class Heartbeat(models.Model):
    """The last sign of life of a process that nobody would miss otherwise: `worker` or `beat`."""

    name = models.CharField(max_length=8, primary_key=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class Reconciliation(models.Model):
    """How the ledger of one day compared with the provider's own figures, and what became of its unknown attempts.

    The provider's figures are empty where they could not be read, and before the day is over.
    """

    id = models.BigAutoField(primary_key=True)
    day = models.DateField(unique=True)
    checked_at = models.DateTimeField(db_column="at", null=True, help_text="When it was last looked at.")
    compared_at = models.DateTimeField(null=True, help_text="When the day, being over, was last compared.")
    lease_until = models.DateTimeField(
        db_column="busy_until", null=True, editable=False, help_text="A lease: one process does a day."
    )
    characters = models.BigIntegerField(default=0, help_text="What the ledger has for the day.")
    credits = models.BigIntegerField(default=0)
    provider_characters = models.BigIntegerField(null=True, help_text="What the provider has for the day.")
    provider_credits = models.BigIntegerField(null=True)
    unexplained_characters = models.BigIntegerField(
        db_column="unexplained", null=True, help_text="Characters of the difference that nothing explains."
    )
    external_characters = models.BigIntegerField(
        db_column="others", default=0, help_text="Characters in the history that this server did not ask for."
    )
    billed_attempts = models.PositiveIntegerField(
        db_column="settled", default=0, help_text="Unknown attempts found in the provider's history."
    )
    unbilled_attempts = models.PositiveIntegerField(
        db_column="absent", default=0, help_text="Unknown attempts that are not in it: not billed."
    )
    unknown_attempts = models.PositiveIntegerField(
        db_column="unknown", default=0, help_text="Unknown attempts that stay so."
    )
    unknown_characters = models.BigIntegerField(default=0)
    counter = models.BigIntegerField(null=True, help_text="Credits used in the provider's period by `counter_at`.")
    counter_at = models.DateTimeField(null=True)
    counter_resets_at = models.DateTimeField(null=True)
    explanation = models.TextField(blank=True)

    class Meta:
        ordering = ("-day",)

    def __str__(self) -> str:
        return f"{self.day}"


class ProviderState(models.Model):
    """What all processes know about the provider: one row. While the circuit is open nobody waits for it; while the
    quota is spent nobody asks.
    """

    class Circuit(models.TextChoices):
        CLOSED = "closed"
        OPEN = "open"

    class Quota(models.TextChoices):
        AVAILABLE = "available"
        SPENT = "spent"

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    circuit = models.CharField(max_length=6, choices=Circuit, default=Circuit.CLOSED)
    changed_at = models.DateTimeField(default=timezone.now, help_text="When the circuit was opened or closed.")
    probes = models.PositiveIntegerField(default=0, help_text="Failed looks since the circuit opened.")
    next_probe_at = models.DateTimeField(null=True, blank=True)
    quota = models.CharField(max_length=9, choices=Quota, default=Quota.AVAILABLE)
    quota_changed_at = models.DateTimeField(null=True, blank=True, help_text="When the quota was spent or came back.")
    quota_needed = models.PositiveBigIntegerField(default=0, help_text="Characters of the request it was refused to.")
    quota_refusals = models.PositiveIntegerField(
        default=0, help_text="How often in a row it was refused although the subscription shows enough."
    )
    quota_limit = models.PositiveBigIntegerField(null=True, blank=True, help_text="Credits of this period.")
    quota_used = models.PositiveBigIntegerField(null=True, blank=True, help_text="Credits used in this period.")
    quota_resets_at = models.DateTimeField(null=True, blank=True)
    polled_at = models.DateTimeField(null=True, blank=True, help_text="When the subscription was last read.")
    next_poll_at = models.DateTimeField(null=True, blank=True)
    concurrency_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="Streams at a time, as the provider said last."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(id=1), name="provider_state_is_one_row"),
            models.CheckConstraint(condition=Q(circuit__in=["closed", "open"]), name="provider_circuit"),
            models.CheckConstraint(condition=Q(quota__in=["available", "spent"]), name="provider_quota"),
        ]

    def __str__(self) -> str:
        return f"circuit {self.circuit}, quota {self.quota}"

    @property
    def quota_remaining(self) -> int | None:
        """Credits left when the subscription was last read; None: never read, or without a limit."""
        if self.quota_limit is None or self.quota_used is None:
            return None
        return max(self.quota_limit - self.quota_used, 0)


class Incident(models.Model):
    """Something that administrators must know, from when it began to when it was over: one row for each cause."""

    class Kind(models.TextChoices):
        PROVIDER_DOWN = "provider_down", "the speech provider is down"
        ACCESS = "access", "the speech provider refuses our key, plan or permission"
        REQUEST = "request", "the speech provider refuses our requests: a defect of ours"
        VOICE = "voice", "a voice is gone or refused"
        NO_VOICE = "no_voice", "a patient heard nothing"
        QUOTA = "quota", "the speech provider's quota is spent"
        VOICE_SLOTS = "voice_slots", "the speech provider has hardly room for another voice"
        QUOTA_LOW = "quota_low", "the speech provider's quota is running low"
        FORECAST = "forecast", "the quota will not last"
        SLOW = "slow", "speech begins late"
        BUDGET = "budget", "a patient's monthly budget is used up"
        DRIFT = "drift", "the ledger and the provider's figures differ"
        SILENT = "silent", "a part of this server gives no sign of life"
        ALERTS = "alerts", "alerts cannot be sent"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=16, choices=Kind)
    key = models.CharField(max_length=64, blank=True, help_text="Which one, where there can be several of a kind.")
    detail = models.CharField(max_length=300, blank=True)
    opened_at = models.DateTimeField(default=timezone.now)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    opening_sent_at = models.DateTimeField(null=True, blank=True, help_text="When the alert of it had gone out.")
    resolution_sent_at = models.DateTimeField(null=True, blank=True, help_text="When its end had been told.")
    sending_until = models.DateTimeField(null=True, editable=False, help_text="A lease: one process sends at a time.")
    notified_channels = models.CharField(
        db_column="sending_told",
        max_length=16,
        blank=True,
        editable=False,
        help_text="By which ways the state being told has gone out already.",
    )
    sending_failures = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("-opened_at",)
        constraints = [
            models.UniqueConstraint(fields=["kind", "key"], condition=Q(resolved_at=None), name="incident_open_once"),
            models.CheckConstraint(
                condition=Q(
                    kind__in=[
                        "provider_down",
                        "access",
                        "request",
                        "voice",
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
                    ]
                ),
                name="incident_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} since {self.opened_at:%Y-%m-%d %H:%M}"
