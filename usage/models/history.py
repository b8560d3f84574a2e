"""What the provider keeps of our requests."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone


class HistoryDeletion(models.Model):
    """Requests that must be deleted from the provider's history: those of a patient, or those in a voice.

    Ids are plain UUIDs instead of foreign keys, because the row outlives the patient and the voice. `found` counts the
    items of the present pass through the history. The deletion is done when a pass has found none.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    patient = models.UUIDField(null=True)
    voice = models.UUIDField(null=True, help_text="Empty: all requests of the patient, because they were erased.")
    provider_voice_id = models.CharField(max_length=128, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    covers_until = models.DateTimeField(
        help_text="Requests until then are deleted. The last of them may be recorded late."
    )
    cursor = models.DateTimeField(null=True, help_text="The present pass has reached the requests of this time.")
    passes = models.PositiveIntegerField(default=0, help_text="Completed passes through the history.")
    found = models.PositiveIntegerField(default=0)
    deleted = models.PositiveIntegerField(default=0, help_text="Items that were deleted from the provider's history.")
    failures = models.PositiveIntegerField(default=0, help_text="Failed attempts since the last successful one.")
    failing_since = models.DateTimeField(null=True)
    is_refused = models.BooleanField(default=False, help_text="The API key may not read or delete the history.")
    error = models.CharField(max_length=200, blank=True, help_text="The last error.")
    next_attempt_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True, help_text="A worker owns this row until then.")
    done_at = models.DateTimeField(null=True, help_text="When a pass through the history had found nothing.")

    class Meta:
        verbose_name = "deletion at the provider"
        verbose_name_plural = "deletions at the provider"
        ordering = ("-created_at",)
        indexes = [
            models.Index(fields=["created_at"], name="history_deletion_created"),
            models.Index(fields=["next_attempt_at"], condition=Q(done_at=None), name="history_deletion_due"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(voice=None) | ~Q(provider_voice_id=""), name="history_deletion_names_the_voice"
            ),
            models.CheckConstraint(
                condition=Q(patient__isnull=False) | Q(voice__isnull=False), name="history_deletion_of_somebody"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.reason} {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def reason(self) -> str:
        return "Erased patient" if self.voice is None else "Withdrawn voice clone"


class RetentionCheck(models.Model):
    """One night's check that zero retention is effective.

    A word was spoken at `sent_at`. At `checked_at` the history was read. `is_found` says whether it had the request.
    """

    night = models.DateField(primary_key=True)
    request_id = models.CharField(max_length=128, blank=True)
    sent_at = models.DateTimeField(null=True)
    checked_at = models.DateTimeField(null=True)
    is_found = models.BooleanField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    next_step_at = models.DateTimeField(null=True, help_text="One process at a time makes a step.")
    error = models.CharField(max_length=200, blank=True, help_text="Why the last step has failed.")

    class Meta:
        verbose_name = "check of zero retention"
        verbose_name_plural = "checks of zero retention"
        ordering = ("-night",)

    def __str__(self) -> str:
        return f"{self.night}"
