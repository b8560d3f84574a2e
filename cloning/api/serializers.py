"""Serializers of voice clones: the upload, and the state of a clone job."""

from django.urls import reverse
from drf_spectacular.utils import (
    OpenApiExample,
    extend_schema_field,
    extend_schema_serializer,
    inline_serializer,
)
from rest_framework import serializers

from cloning.consent.wording import ConsentMissing
from cloning.models import CloneJob

READY = OpenApiExample(
    "A daughter's voice",
    {
        "id": "7d1f2c9e-8a0b-4c57-9f6e-0b1a2c3d4e5f",
        "patient": "0b7c0a51-5c1e-4f7e-8a53-2f6f3c1f9d10",
        "name": "Anna, her daughter",
        "status": "ready",
        "voice": "c4f1f9e2-6a39-4f0e-9f3d-3e1c6f0d7b21",
        "preview": "/api/v1/voices/c4f1f9e2-6a39-4f0e-9f3d-3e1c6f0d7b21/preview/",
        "report": {
            "duration_s": 92.4,
            "codec": "aac",
            "sample_rate_hz": 48000,
            "channels": 1,
            "snr_db": 31.5,
            "speech_ratio": 0.87,
            "clipping_ratio": 0.0,
            "loudness_dbfs": -21.0,
            "noise_removal_helps": True,
            "repairs": ["12 seconds of silence after the last word were cut off."],
            "warnings": ["There is a hum, as from a fridge or a charger."],
        },
        "error": None,
        "requires_verification": False,
        "consent_by": "Anna Ellis",
        "consented_at": "2026-11-23T11:58:00Z",
        "created_at": "2026-11-23T11:58:00Z",
        "ended_at": "2026-11-23T11:58:06Z",
        "withdrawn_at": None,
    },
    response_only=True,
)
FAILED = OpenApiExample(
    "A failed clone",
    {
        **READY.value,
        "status": "failed",
        "voice": None,
        "preview": None,
        "error": {
            "code": "voice_limit_reached",
            "message": "The account at the speech provider has no room for another voice.",
        },
    },
    response_only=True,
)
CONSENT_REQUIRED = "Confirm that the person who speaks has consented (`consent`). Without that, nothing is stored."


class UploadSerializer(serializers.Serializer):
    name = serializers.CharField(max_length=100, help_text="The name of the voice in this product.")
    sample = serializers.FileField(
        allow_empty_file=True, max_length=1000, help_text="MP3, WAV or M4A. At least 60 s, at most 10,000,000 bytes."
    )
    consent = serializers.BooleanField(default=False, help_text="Must be true.")
    consent_by = serializers.CharField(
        max_length=200, help_text="The person who speaks in the recording and has consented."
    )
    remove_background_noise = serializers.BooleanField(default=False)
    use_when_ready = serializers.BooleanField(
        default=True, help_text="If false, the patient hears the voice only when somebody chooses it."
    )

    def validate_consent(self, consent: bool) -> bool:
        """Raises ConsentMissing, and not a ValidationError, if the consent is not given.

        So the response has the error code `no_consent`, even if other fields are invalid, too.
        """
        if not consent:
            raise ConsentMissing(CONSENT_REQUIRED)
        return consent


class AcceptedCloneSerializer(serializers.ModelSerializer[CloneJob]):
    class Meta:
        model = CloneJob
        fields = ("id", "status")


class ReportSerializer(serializers.Serializer):
    """The result of the inspection of the recording."""

    duration_s = serializers.FloatField()
    codec = serializers.CharField()
    sample_rate_hz = serializers.IntegerField()
    channels = serializers.IntegerField()
    snr_db = serializers.FloatField(allow_null=True)
    speech_ratio = serializers.FloatField()
    clipping_ratio = serializers.FloatField()
    loudness_dbfs = serializers.FloatField(allow_null=True)
    noise_removal_helps = serializers.BooleanField(
        help_text="Whether `remove_background_noise` is useful for this recording. It makes a clean one worse."
    )
    repairs = serializers.ListField(child=serializers.CharField(), help_text="What was repaired, in plain words.")
    warnings = serializers.ListField(child=serializers.CharField(), help_text="What could be improved, in plain words.")


@extend_schema_serializer(examples=[READY, FAILED])
class CloneSerializer(serializers.ModelSerializer[CloneJob]):
    preview = serializers.SerializerMethodField(
        help_text="Path of a preview of the voice. Null until the voice is usable."
    )
    report = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()

    class Meta:
        model = CloneJob
        fields = (
            "id",
            "patient",
            "name",
            "status",
            "voice",
            "preview",
            "report",
            "error",
            "requires_verification",
            "consent_by",
            "consented_at",
            "created_at",
            "ended_at",
            "withdrawn_at",
        )
        read_only_fields = fields

    def get_preview(self, job: CloneJob) -> str | None:
        usable = job.voice is not None and job.voice.is_usable
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
        """The code and the message of the problem: why the clone failed or is delayed, or that its voice is lost.

        Null if there is no problem.
        """
        return job.error


@extend_schema_serializer(
    component_name="StockRead",
    examples=[OpenApiExample("One new voice", {"added": 1, "changed": 0, "gone": 0}, response_only=True)],
)
class VoiceSyncSerializer(serializers.Serializer):
    """The result of a synchronisation of stock voices, as numbers of voices."""

    added = serializers.IntegerField()
    changed = serializers.IntegerField(help_text="Voices with a new name, and voices that are available again.")
    gone = serializers.IntegerField()


class CloneFilter(serializers.Serializer):
    """The parameters of the list of a patient's clones."""

    status = serializers.ChoiceField(CloneJob.Status.choices, required=False)
