"""Clone jobs: the recording, the consent, and the state of the voice clone."""

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
VOICE_GONE = "The speech provider has lost or changed this voice. The patient hears the default voice."
RETRY_HINT = "Retry to create it again from the recording."
UPLOAD_HINT = "The recording is deleted. Upload a recording again."


def sample_storage() -> Storage:
    """Returns the storage of recordings. The name of a recording is the id of its clone job.

    The storage gives out no URLs. Only the admin plays recordings.
    """
    return storages["samples"]


class CloneJobQuerySet(models.QuerySet["CloneJob"]):
    def unfinished(self) -> "CloneJobQuerySet":
        return self.filter(status__in=[CloneJob.Status.PENDING, CloneJob.Status.UPLOADING])

    def duplicates_of(self, patient: uuid.UUID | None, digest: str, since: datetime) -> "CloneJobQuerySet":
        """Jobs for this patient and recording that are unfinished, or that are ready and were created after `since`.

        `digest` is the SHA-256 digest of the recording as hexadecimal digits.
        """
        ready = self.filter(status=CloneJob.Status.READY, created_at__gte=since)
        return (self.unfinished() | ready).filter(patient=patient, sample_digest=digest)

    def withdrawable(self) -> "CloneJobQuerySet":
        return self.exclude(status__in=[CloneJob.Status.WITHDRAWING, CloneJob.Status.WITHDRAWN])

    def undecided(self) -> "CloneJobQuerySet":
        """Jobs with a usable voice of which nobody has decided yet whether the patient hears it."""
        is_usable = Q(voice__state=Voice.State.USABLE, requires_verification=False)
        return self.filter(is_usable, status=CloneJob.Status.READY, use_when_ready=False)

    def of_erased_patients(self) -> "CloneJobQuerySet":
        return self.filter(patient__erased_at__isnull=False)


class CloneJob(models.Model):
    """One recording from which a voice clone is created, and the record of the consent.

    States: pending -> uploading -> ready or failed. After a retryable error the job is pending again until
    `next_attempt_at`. A withdrawal takes a job from any of these states to withdrawing and then to withdrawn, which is
    final. A worker owns the row until `lease_until`. After the erasure of a patient, the only people that the job still
    names are the witness and the user who withdrew it. These users can be deactivated, but not deleted.
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
    name = models.CharField(
        max_length=100, help_text="The name of the voice in this product. The provider never gets it."
    )
    sample = models.CharField(
        max_length=100, blank=True, editable=False, help_text="The name of the recording in its storage."
    )
    sample_digest = models.CharField(max_length=64, editable=False, help_text="SHA-256 of the recording.")
    content_type = models.CharField(max_length=40, editable=False)
    report = models.JSONField(default=dict, editable=False, help_text="The result of the inspection of the recording.")
    remove_background_noise = models.BooleanField(default=False)
    use_when_ready = models.BooleanField(
        default=True,
        db_default=True,
        editable=False,
        help_text="Whether the new voice becomes the patient's voice at once. If not, a person listens to it first.",
    )
    consent_by = models.CharField(max_length=200, help_text="The person who speaks in the recording and has consented.")
    consented_at = models.DateTimeField(default=timezone.now, editable=False)
    consent_wording = models.CharField(max_length=20, editable=False, help_text="The version of the consent wording.")
    witness = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        editable=False,
        help_text="The user who uploaded the recording and witnessed the consent. Empty: uploaded at the command line.",
    )
    status = models.CharField(max_length=11, choices=Status, default=Status.PENDING, editable=False)
    attempts = models.PositiveIntegerField(default=0, editable=False, help_text="How many attempts have started.")
    last_attempt = models.PositiveIntegerField(default=4, editable=False, help_text="After this attempt the job fails.")
    next_attempt_at = models.DateTimeField(null=True, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False, help_text="A worker owns this job until then.")
    error_code = models.CharField(max_length=64, blank=True, editable=False)
    error_message = models.CharField(max_length=300, blank=True, editable=False)
    voice = models.OneToOneField(
        Voice,
        null=True,
        on_delete=models.PROTECT,
        related_name="clone_job",
        editable=False,
        help_text="The voice that was created.",
    )
    requires_verification = models.BooleanField(
        default=False,
        editable=False,
        help_text="The provider must verify the owner of the voice before it can be used.",
    )
    previous_voice = models.ForeignKey(
        Voice,
        db_column="former_voice_id",
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        editable=False,
        help_text="The patient's voice before this one. Empty: the default voice.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False, help_text="When the job was ready or had failed.")
    replaced = models.BooleanField(
        default=False, editable=False, help_text="Withdrawn because the patient has newer voices."
    )
    withdrawn_at = models.DateTimeField(null=True, editable=False, help_text="When all data was removed.")
    withdrawn_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )

    objects = CloneJobQuerySet.as_manager()

    class Meta:
        verbose_name = "voice clone"
        ordering = ("-created_at",)
        indexes = [
            models.Index(fields=["created_at"], name="clone_created"),
            models.Index(
                fields=["created_at"], condition=Q(status__in=["pending", "uploading", "withdrawing"]), name="clone_due"
            ),
            models.Index(fields=["ended_at"], condition=~Q(sample=""), name="clone_with_sample"),
            models.Index(
                fields=["created_at"], condition=Q(requires_verification=True), name="clone_requires_verification"
            ),
        ]
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
        """The name of the voice at the provider: `vc-` and the id of the job, without any personal data.

        A voice of this job is recognized by this name, because the provider has no idempotency keys.
        """
        return f"{PROVIDER_NAME_PREFIX}{self.pk}"

    @property
    def error(self) -> dict[str, str] | None:
        """Why the job failed or waits, or why its voice is not used: an error code and a message for clinicians.

        None without an error.
        """
        if self.is_lost:
            return {"code": "voice_gone", "message": f"{VOICE_GONE} {RETRY_HINT if self.sample else UPLOAD_HINT}"}
        return {"code": self.error_code, "message": self.error_message} if self.error_code else None

    @property
    def is_lost(self) -> bool:
        """Whether the provider has lost the voice of this job."""
        return self.status == self.Status.READY and self.voice is not None and self.voice.state == Voice.State.GONE

    def open_sample(self) -> File:
        """Opens the recording for reading.

        Raises FileNotFoundError if the recording is deleted, and otherwise the exceptions of the storage's library.
        """
        return sample_storage().open(self.sample)

    @property
    def is_retryable(self) -> bool:
        """Whether the job can be retried.

        Its recording must still be stored, and it must have failed, or the provider must have lost its voice.
        """
        return bool(self.sample) and (self.status == self.Status.FAILED or self.is_lost)
