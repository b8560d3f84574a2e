"""What clinicians send to have a voice copied, and read of how that goes."""

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field, inline_serializer
from rest_framework import serializers

from cloning.consent import ConsentMissing
from cloning.models import CloneJob

CONSENT_NEEDED = "Without the consent of the person who speaks, nothing is stored: send `consent` as true."


class UploadSerializer(serializers.Serializer):
    name = serializers.CharField(max_length=100, help_text="What the voice is called here.")
    sample = serializers.FileField(
        allow_empty_file=True, max_length=1000, help_text="MP3, WAV or M4A; at least 60 s, at most 10,000,000 bytes."
    )
    consent = serializers.BooleanField(default=False, help_text="Must be true.")
    consent_by = serializers.CharField(max_length=200, help_text="Whose voice it is: who has consented.")
    remove_background_noise = serializers.BooleanField(default=False)

    def validate_consent(self, consent: bool) -> bool:
        """A refusal with a code of its own, whatever else is wrong."""
        if not consent:
            raise ConsentMissing(CONSENT_NEEDED)
        return consent


class AcceptedCloneSerializer(serializers.ModelSerializer[CloneJob]):
    class Meta:
        model = CloneJob
        fields = ("id", "status")


class ReportSerializer(serializers.Serializer):
    """What was found in the recording."""

    duration_s = serializers.FloatField()
    codec = serializers.CharField()
    sample_rate_hz = serializers.IntegerField()
    channels = serializers.IntegerField()
    snr_db = serializers.FloatField(allow_null=True)
    speech_ratio = serializers.FloatField()
    clipping_ratio = serializers.FloatField()
    loudness_dbfs = serializers.FloatField(allow_null=True)
    warnings = serializers.ListField(child=serializers.CharField(), help_text="What could be better, in plain words.")


class CloneSerializer(serializers.ModelSerializer[CloneJob]):
    preview = serializers.SerializerMethodField(help_text="The path of a preview, once the voice can speak.")
    report = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()

    class Meta:
        model = CloneJob
        fields = (
            "id", "patient", "name", "status", "voice", "preview", "report", "error", "requires_verification",
            "consent_by", "consented_at", "created_at", "ended_at", "withdrawn_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_preview(self, job: CloneJob) -> str | None:
        usable = job.voice is not None and job.voice.usable
        return reverse("voice-preview", args=[job.voice_id]) if usable else None

    @extend_schema_field(ReportSerializer(allow_null=True))
    def get_report(self, job: CloneJob) -> dict[str, object] | None:
        return job.report or None

    @extend_schema_field(
        inline_serializer(
            "CloneError", {"code": serializers.CharField(), "message": serializers.CharField()}, allow_null=True
        )
    )
    def get_error(self, job: CloneJob) -> dict[str, str] | None:
        """Why it failed, what the next attempt waits for, or that its voice is lost; null if nothing is wrong."""
        return job.error


class StockReadSerializer(serializers.Serializer):
    """What has changed, in numbers of voices."""

    added = serializers.IntegerField()
    changed = serializers.IntegerField(help_text="They have another name, or are back.")
    gone = serializers.IntegerField()
