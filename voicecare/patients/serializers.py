"""Serializers of patients, devices and voices."""

from decimal import Decimal
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from voicecare.patients.models import Device, Patient, Voice

PATIENT_EXAMPLE = OpenApiExample(
    "Maggie",
    {
        "id": "0b7c0a51-5c1e-4f7e-8a53-2f6f3c1f9d10",
        "name": "Margaret Ellis",
        "preferred_name": "Maggie",
        "companion_name": "Clara",
        "language": "en",
        "voice": None,
        "speech_rate": 0.9,
        "monthly_character_budget": None,
        "archived": False,
        "created_at": "2026-11-23T11:58:00Z",
    },
    response_only=True,
)
DEVICE_EXAMPLE = OpenApiExample(
    "A tablet",
    {
        "id": "5b0e3d1c-77c2-4f6b-8a0f-9d1f2a3b4c5d",
        "name": "Bedside tablet",
        "format": "mp3_44100_128",
        "last_seen": "2026-11-23T11:58:00Z",
        "revoked_at": None,
        "created_at": "2026-11-01T09:00:00Z",
    },
    response_only=True,
)
ISSUED_DEVICE_EXAMPLE = OpenApiExample(
    "A new device with its token",
    {"id": "5b0e3d1c-77c2-4f6b-8a0f-9d1f2a3b4c5d", "name": "Bedside tablet", "token": "57a0f359.8Wa-OQV8…"},
    response_only=True,
)
VOICE_EXAMPLE = OpenApiExample(
    "A daughter's voice",
    {
        "id": "c4f1f9e2-6a39-4f0e-9f3d-3e1c6f0d7b21",
        "name": "Anna, her daughter",
        "source": "cloned",
        "provider_id": "xQ3kP0aVb7tWm2LrYz5c",
        "state": "usable",
    },
    response_only=True,
)
MAX_BUDGET = 2**31 - 1  # the largest value of PostgreSQL's integer


@extend_schema_field({"type": "number", "minimum": 0.7, "maximum": 1.2, "multipleOf": 0.01})
class SpeechRateField(serializers.DecimalField):
    """A decimal in the database and a number in JSON."""

    def to_representation(self, value: Decimal) -> float:  # type: ignore[override]  # DRF returns str or Decimal
        return float(value)


@extend_schema_serializer(examples=[PATIENT_EXAMPLE])
class PatientSerializer(serializers.ModelSerializer[Patient]):
    language = serializers.RegexField(
        r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?\Z", max_length=10, required=False, help_text="For example en or de-AT."
    )
    voice = serializers.PrimaryKeyRelatedField(
        queryset=Voice.objects.filter(state=Voice.State.USABLE),
        pk_field=serializers.UUIDField(),
        allow_null=True,
        required=False,
        help_text="A stock voice or a clone of this patient. null: the default voice.",
    )
    speech_rate = SpeechRateField(
        max_digits=3, decimal_places=2, min_value=Decimal("0.70"), max_value=Decimal("1.20"), required=False
    )
    monthly_character_budget = serializers.IntegerField(
        min_value=0, max_value=MAX_BUDGET, allow_null=True, required=False, help_text="null: no limit."
    )
    archived = serializers.BooleanField(
        required=False, help_text="If true, the devices are disconnected and cannot connect."
    )

    class Meta:
        model = Patient
        fields = (
            "id",
            "name",
            "preferred_name",
            "companion_name",
            "language",
            "voice",
            "speech_rate",
            "monthly_character_budget",
            "archived",
            "created_at",
        )
        read_only_fields = ("id", "created_at")

    def validate_voice(self, voice: Voice | None) -> Voice | None:
        """Reject a clone of another patient with the message for a voice that does not exist."""
        patient_id = self.instance.pk if self.instance else None
        if voice is not None and voice.source == Voice.Source.CLONED and voice.patient_id != patient_id:
            raise serializers.ValidationError(f'Invalid pk "{voice.pk}" - object does not exist.', "does_not_exist")
        return voice

    def to_internal_value(self, data: Any) -> Any:  # noqa: ANN401 - DRF's signature
        values = super().to_internal_value(data)
        if "archived" in values:
            archived_at = self.instance.archived_at if self.instance else None
            values["archived_at"] = (archived_at or timezone.now()) if values.pop("archived") else None
        return values

    def to_representation(self, patient: Patient) -> dict[str, Any]:
        return {**super().to_representation(patient), "archived": patient.archived_at is not None}

    def update(self, patient: Patient, values: dict[str, Any]) -> Patient:
        """Write only the fields that were sent. A clone that becomes ready at the same time writes to the same row."""
        for name, value in values.items():
            setattr(patient, name, value)
        patient.save(update_fields=values)
        return patient


@extend_schema_serializer(examples=[DEVICE_EXAMPLE])
class DeviceSerializer(serializers.ModelSerializer[Device]):
    class Meta:
        model = Device
        fields = ("id", "name", "format", "last_seen", "revoked_at", "created_at")
        read_only_fields = ("id", "format", "last_seen", "revoked_at", "created_at")


@extend_schema_serializer(examples=[ISSUED_DEVICE_EXAMPLE])
class IssuedDeviceSerializer(serializers.Serializer):
    """A new token. No other response contains it."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    token = serializers.CharField()


@extend_schema_serializer(examples=[VOICE_EXAMPLE])
class VoiceSerializer(serializers.ModelSerializer[Voice]):
    class Meta:
        model = Voice
        fields = ("id", "name", "source", "provider_id", "state")
