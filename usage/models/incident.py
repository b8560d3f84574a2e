"""Incidents, and what people and the server did about them."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone


class Incident(models.Model):
    """A problem that administrators must know about, from its beginning to its end.

    At most one open row exists for each `kind` and `key`. People are kept by their user name, not by a reference,
    because a resolution without a name is one of the server, and accounts can be deleted.
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
        BUDGET = "budget", "the budget of a patient or a clinic is used up"
        DRIFT = "drift", "the ledger and the provider's figures differ"
        SILENT = "silent", "worker or beat not running"
        SECOND_BEAT = "second_beat", "beat is running twice"
        ALERTS = "alerts", "alerts cannot be sent"
        CHANNEL = "channel", "a notification channel fails"
        TASK = "task", "a periodic task keeps failing"
        HISTORY = "history", "requests stay in the provider's history"
        RETENTION = "retention", "zero retention is not effective"
        REGION = "region", "requests are handled outside of the promised region"
        WEBHOOK = "webhook", "a webhook endpoint was disabled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=16, choices=Kind)
    key = models.CharField(
        max_length=64,
        blank=True,
        help_text="Distinguishes open incidents of one kind, for example by voice or patient.",
    )
    detail = models.CharField(max_length=300, blank=True)
    opened_at = models.DateTimeField(default=timezone.now)
    reopened_at = models.DateTimeField(
        null=True, blank=True, help_text="When it occurred again after a person had marked it as resolved."
    )
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=150, blank=True, default="", db_default="")
    muted_until = models.DateTimeField(null=True, blank=True, help_text="No alert is sent until then, except its end.")
    mute_ended_at = models.DateTimeField(
        null=True, editable=False, help_text="The end of the last mute whose end was reported by mail or webhook."
    )
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(
        max_length=150, blank=True, default="", db_default="", help_text="Empty if the server detected the end."
    )
    opening_sent_at = models.DateTimeField(
        null=True, blank=True, help_text="When the alert about the opening was sent."
    )
    resolution_sent_at = models.DateTimeField(
        null=True, blank=True, help_text="When the alert about the resolution was sent."
    )
    sending_until = models.DateTimeField(
        null=True, editable=False, help_text="When the lease of the process that sends an alert expires."
    )
    retry_at = models.DateTimeField(
        null=True, editable=False, help_text="When the channels that have failed try again. Null if none has."
    )
    notified_channels = models.CharField(
        db_column="sending_told",
        max_length=16,
        blank=True,
        editable=False,
        help_text="Channels that have already sent this notification. A plus sign: the resolution, too.",
    )
    notified_state = models.CharField(
        max_length=8,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text='The notification that "notified_channels" is about: opened, reminder or resolved.',
    )
    sending_failures = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("-opened_at",)
        indexes = [
            models.Index(fields=["opened_at"], name="incident_opened"),
            models.Index(fields=["resolved_at"], name="incident_resolved"),
            models.Index(fields=["key", "opened_at"], name="incident_key"),
            models.Index(fields=["reopened_at"], condition=Q(reopened_at__isnull=False), name="incident_reopened"),
            models.Index(fields=["muted_until"], condition=Q(muted_until__isnull=False), name="incident_muted"),
            models.Index(
                fields=["mute_ended_at"], condition=Q(mute_ended_at__isnull=False), name="incident_mute_ended"
            ),
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
                        "second_beat",
                        "alerts",
                        "channel",
                        "task",
                        "region",
                        "history",
                        "retention",
                        "webhook",
                    ]
                ),
                name="incident_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} since {self.opened_at:%Y-%m-%d %H:%M}"


class IncidentEvent(models.Model):
    """A line in the timeline of an incident. Rows are only added.

    The first opening, and an end that the server detected, are columns of the incident and have no row.
    """

    class Kind(models.TextChoices):
        ALERT = "alert", "Alert sent"
        ACKNOWLEDGED = "acknowledged"
        MUTED = "muted"
        UNMUTED = "unmuted"
        NOTE = "note"
        RESOLVED = "resolved", "Marked as resolved"
        REOPENED = "reopened", "Occurred again"

    id = models.BigAutoField(primary_key=True)
    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=12, choices=Kind)
    at = models.DateTimeField(default=timezone.now)
    person = models.CharField(max_length=150, blank=True, help_text="User name. Empty if the server did it.")
    channel = models.CharField(max_length=64, blank=True, help_text="The channel of an alert.")
    text = models.TextField(
        blank=True, help_text="A note, the state that an alert reported, or the detail of a regression."
    )

    class Meta:
        ordering = ("at", "id")

    def __str__(self) -> str:
        return f"{self.kind} {self.at:%Y-%m-%d %H:%M:%S}"
