"""What the provider was asked for and what it bills. Rows are written by `usage/ledger.py` and edited by nobody."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone


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
    asked = models.PositiveIntegerField(help_text="Characters in the request.")
    characters = models.PositiveIntegerField(default=0, help_text="Characters of requests whose 2xx headers came.")
    credits = models.PositiveIntegerField(default=0, help_text="What the provider says it bills.")
    saved = models.PositiveIntegerField(default=0, help_text="Characters spoken without asking the provider.")
    request_id = models.CharField(max_length=128, blank=True)
    first_byte_ms = models.FloatField(null=True)
    at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ("-at",)
        constraints = [
            models.UniqueConstraint(fields=["source", "segment", "attempt"], name="usage_attempt_once"),
            models.CheckConstraint(
                condition=Q(outcome__in=["unknown", "completed", "failed", "cancelled"]), name="usage_outcome"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["live", "retry", "backup", "cache", "offline", "probe", "warm"]),
                name="usage_kind",
            ),
            models.CheckConstraint(
                condition=~Q(outcome="unknown") | Q(characters=0), name="usage_unknown_is_not_counted"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.at:%Y-%m-%d %H:%M:%S}"


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
    sending_told = models.CharField(
        max_length=16, blank=True, editable=False, help_text="By which ways the state being told has gone out already."
    )
    sending_failures = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("-opened_at",)
        constraints = [
            models.UniqueConstraint(fields=["kind", "key"], condition=Q(resolved_at=None), name="incident_open_once"),
            models.CheckConstraint(
                condition=Q(
                    kind__in=["provider_down", "access", "request", "voice", "no_voice", "quota", "voice_slots"]
                ),
                name="incident_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} since {self.opened_at:%Y-%m-%d %H:%M}"
