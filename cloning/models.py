"""Copies of people's voices: the recording, who consented, and how far the making has come."""

import uuid
from datetime import datetime

from django.conf import settings
from django.core.files import File
from django.core.files.storage import Storage, storages
from django.db import models
from django.db.models import Q
from django.utils import timezone

from voicecare.patients.models import Patient, Voice

PROVIDER_NAME_PREFIX = "vc-"
VOICE_GONE = "The speech provider has lost this voice or changed it: the patient hears the default voice."
RETRY_HINT = "Retry to have it made again from the recording."
UPLOAD_HINT = "The recording is deleted: upload one again."


def sample_storage() -> Storage:
    """Where recordings are kept, under the ids of their jobs. It has no addresses: the admin alone plays them."""
    return storages["samples"]


class CloneJobQuerySet(models.QuerySet["CloneJob"]):
    def unfinished(self) -> "CloneJobQuerySet":
        return self.filter(status__in=[CloneJob.Status.PENDING, CloneJob.Status.UPLOADING])

    def duplicates_of(self, patient: uuid.UUID | None, digest: str, since: datetime) -> "CloneJobQuerySet":
        """Of this recording: being made, or made of what came in since then."""
        ready = self.filter(status=CloneJob.Status.READY, created_at__gte=since)
        return (self.unfinished() | ready).filter(patient=patient, sample_digest=digest)

    def withdrawable(self) -> "CloneJobQuerySet":
        return self.exclude(status__in=[CloneJob.Status.WITHDRAWING, CloneJob.Status.WITHDRAWN])

    def of_erased_patients(self) -> "CloneJobQuerySet":
        return self.filter(patient__erased_at__isnull=False)


class CloneJob(models.Model):
    """One recording on its way to being a voice, and the record of the consent to that.

    pending -> uploading -> ready or failed; back to pending for what can heal (`next_attempt_at`). From all of these
    -> withdrawing -> withdrawn, which nothing leaves. While `lease_until` is to come, a worker has the row. What
    remains of an erased patient's job names nobody but the witness and who withdrew it: those users can be deactivated,
    not deleted.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        UPLOADING = "uploading"
        READY = "ready"
        FAILED = "failed"
        WITHDRAWING = "withdrawing"
        WITHDRAWN = "withdrawn"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    patient = models.ForeignKey(
        Patient, null=True, on_delete=models.PROTECT, related_name="clones", help_text="Empty once erased."
    )
    name = models.CharField(max_length=100, help_text="What the voice is called here; the provider never sees it.")
    sample = models.CharField(max_length=100, blank=True, editable=False, help_text="Its name in `sample_storage()`.")
    sample_digest = models.CharField(max_length=64, editable=False, help_text="SHA-256 of the recording.")
    content_type = models.CharField(max_length=40, editable=False)
    report = models.JSONField(default=dict, editable=False, help_text="What was found in the recording.")
    remove_background_noise = models.BooleanField(default=False)
    consent_by = models.CharField(max_length=200, help_text="Whose voice it is: who has consented.")
    consented_at = models.DateTimeField(default=timezone.now, editable=False)
    consent_wording = models.CharField(max_length=20, editable=False, help_text="The version of what was agreed to.")
    witness = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        editable=False,
        help_text="Who uploaded the recording and saw the consent; empty: an operator at the command line.",
    )
    status = models.CharField(max_length=11, choices=Status, default=Status.PENDING, editable=False)
    attempts = models.PositiveIntegerField(default=0, editable=False, help_text="How often a worker has taken it.")
    last_attempt = models.PositiveIntegerField(default=4, editable=False, help_text="The attempt that ends it.")
    next_attempt_at = models.DateTimeField(null=True, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False, help_text="Until when a worker has it.")
    error_code = models.CharField(max_length=64, blank=True, editable=False)
    error_message = models.CharField(max_length=300, blank=True, editable=False)
    voice = models.OneToOneField(
        Voice,
        null=True,
        on_delete=models.PROTECT,
        related_name="clone_job",
        editable=False,
        help_text="What it became.",
    )
    requires_verification = models.BooleanField(
        default=False, editable=False, help_text="The provider wants its owner to be verified before it may speak."
    )
    previous_voice = models.ForeignKey(
        Voice,
        db_column="former_voice_id",
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        editable=False,
        help_text="Which voice the patient heard before this one; empty: the default.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False, help_text="When it was ready, or had failed for good.")
    replaced = models.BooleanField(
        default=False, editable=False, help_text="Withdrawn because the patient has newer voices."
    )
    withdrawn_at = models.DateTimeField(null=True, editable=False, help_text="When nothing of it was left.")
    withdrawn_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )

    objects = CloneJobQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["pending", "uploading", "ready", "failed", "withdrawing", "withdrawn"]),
                name="clone_status",
            ),
            models.UniqueConstraint(
                fields=["patient", "sample_digest"],
                condition=Q(status__in=["pending", "uploading"]),
                name="clone_once_at_a_time",
            ),
            models.CheckConstraint(condition=~Q(consent_by="") | Q(status="withdrawn"), name="clone_has_consent"),
            models.CheckConstraint(
                condition=Q(patient__isnull=False) | Q(status="withdrawn"), name="clone_has_a_patient"
            ),
            models.CheckConstraint(
                condition=~Q(status="ready") | Q(voice__isnull=False), name="clone_ready_has_a_voice"
            ),
            models.CheckConstraint(
                condition=~Q(status="uploading") | Q(lease_until__isnull=False), name="clone_uploading_has_a_lease"
            ),
            models.CheckConstraint(
                condition=Q(sample="") | ~Q(status="withdrawn"), name="clone_withdrawn_keeps_no_sample"
            ),
            models.CheckConstraint(condition=~Q(status="failed") | ~Q(error_code=""), name="clone_failed_says_why"),
        ]

    def __str__(self) -> str:
        return f"{self.status} {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def provider_name(self) -> str:
        """What it is called at the provider, which has no idempotency key: whoever made it finds it again by this."""
        return f"{PROVIDER_NAME_PREFIX}{self.pk}"

    @property
    def error(self) -> dict[str, str] | None:
        """Why it failed, waits or is not heard, in words for clinicians; None if nothing is wrong."""
        if self.is_lost:
            return {"code": "voice_gone", "message": f"{VOICE_GONE} {RETRY_HINT if self.sample else UPLOAD_HINT}"}
        return {"code": self.error_code, "message": self.error_message} if self.error_code else None

    @property
    def is_lost(self) -> bool:
        """It became a voice that the provider does not have any more."""
        return self.status == self.Status.READY and self.voice is not None and self.voice.state == Voice.State.GONE

    def open_sample(self) -> File:
        """Raises FileNotFoundError when it is deleted, and whatever else the storage's library raises."""
        return sample_storage().open(self.sample)

    @property
    def is_retryable(self) -> bool:
        """It failed, or its voice is gone at the provider; and the recording is kept."""
        return bool(self.sample) and (self.status == self.Status.FAILED or self.is_lost)
