"""Notification channels, and what each of them has sent about an incident."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from usage.models.incident import Incident
from voicecare.patients.models import Clinic

MAX_ESCALATION_MINUTES = 24 * 60


class NotificationChannel(models.Model):
    """A service that tells people about incidents, such as a chat or SMS, through the library Apprise.

    The mail and the webhook of the settings are no rows. `url` is a secret: it has the tokens of the service. It must
    not get into pages, logs, audit entries or texts of errors.
    """

    name = models.CharField(max_length=60, unique=True, help_text="For example the people whom it reaches.")
    url = models.TextField("address", max_length=2000)
    kinds = models.JSONField(default=list, blank=True, help_text="Kinds of incidents. None chosen: all kinds.")
    severities = models.JSONField(default=list, blank=True, help_text="None chosen: all severities.")
    clinic = models.ForeignKey(
        Clinic,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="+",
        help_text="Only incidents about this clinic, its patients and their voices. Empty: all incidents.",
    )
    escalate_after_minutes = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_ESCALATION_MINUTES)],
        help_text="Empty: informed at once. Otherwise only if nobody has acknowledged the incident for so long.",
    )
    quiet_from = models.TimeField(null=True, blank=True)
    quiet_to = models.TimeField(null=True, blank=True)
    enabled = models.BooleanField(default=True)
    sending_until = models.DateTimeField(
        null=True, editable=False, help_text="Lease expiry, and after a failure the time of the next attempt."
    )
    failures = models.PositiveIntegerField(default=0, editable=False, help_text="Consecutive failed attempts.")
    last_sent_at = models.DateTimeField("last sent", null=True, editable=False)
    last_failed_at = models.DateTimeField(null=True, editable=False)
    last_error = models.CharField(max_length=200, blank=True, editable=False)

    class Meta:
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(
                condition=Q(quiet_from__isnull=True, quiet_to__isnull=True)
                | Q(quiet_from__isnull=False, quiet_to__isnull=False),
                name="notification_quiet_hours",
                violation_error_message="Quiet hours need a beginning and an end.",
            )
        ]

    def __str__(self) -> str:
        return self.name


class ChannelAlert(models.Model):
    """What a channel has sent about an incident.

    Each column has the time in the incident's row that the message was about. So a message is due again when that time
    changes, for example when the incident opens again.
    """

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="channel_alerts")
    channel = models.ForeignKey(NotificationChannel, on_delete=models.CASCADE, related_name="alerts")
    opening_of = models.DateTimeField(null=True, help_text="When the incident opened that was reported.")
    reminder_of = models.DateTimeField(null=True, help_text="The end of the mute that was reported.")
    resolution_of = models.DateTimeField(null=True, help_text="The end of the incident that was reported.")
    failures = models.PositiveIntegerField(default=0, help_text="Consecutive failed attempts.")
    retry_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["incident", "channel"], name="channel_alert_once")]

    def __str__(self) -> str:
        return f"{self.incident_id} by {self.channel_id}"
