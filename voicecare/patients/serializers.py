"""Serializers of patients, devices and voices."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.validators import UniqueValidator

from voicecare.core import languages
from voicecare.patients.access import CHANGE_CLINIC, may
from voicecare.patients.models import Clinic, Device, Patient, Voice
from voicecare.patients.models.patient import OWN_VOICE_NEEDED

PATIENT_EXAMPLE = OpenApiExample(
    "Maggie",
    {
        "id": "0b7c0a51-5c1e-4f7e-8a53-2f6f3c1f9d10",
        "name": "Margaret Ellis",
        "preferred_name": "Maggie",
        "external_id": "MRN-104832",
        "companion_name": "Clara",
        "language": "en",
        "voice": None,
        "backup_voice": None,
        "backup_policy": "switch",
        "speech_rate": 0.9,
        "monthly_character_budget": None,
        "clinic": None,
        "archived": False,
        "created_at": "2026-11-23T11:58:00Z",
    },
    response_only=True,
)
ERASURE_EXAMPLE = OpenApiExample(
    "In a week", {"erases_at": "2026-11-30T11:58:00Z"}, response_only=True, status_codes=["202"]
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
CLINIC_EXAMPLE = OpenApiExample(
    "A ward", {"id": "a8a8c1f5-2d5e-4f0c-9c62-0b7a7f2f1e11", "name": "Ward 3"}, response_only=True
)
EXTERNAL_ID_TAKEN = "Another patient has this external id."
MAX_BUDGET = 2**31 - 1  # the largest value of PostgreSQL's integer


@extend_schema_field({"type": "number", "minimum": 0.7, "maximum": 1.2, "multipleOf": 0.01})
class SpeechRateField(serializers.DecimalField):
    """The speech rate: a decimal number in the database, a number and not a string in JSON."""

    def to_representation(self, value: Decimal) -> float:  # type: ignore[override]  # DRF returns str or Decimal
        return float(value)


@extend_schema_field({"type": "string", "pattern": f"^{languages.TAG_PATTERN}$", "maxLength": languages.MAX_LENGTH})
class LanguageField(serializers.CharField):
    """A language code of the list, alone or with a region or script.

    The OpenAPI schema has a pattern instead of the list, because there are thousands of combinations.
    """


@extend_schema_serializer(examples=[PATIENT_EXAMPLE])
class PatientSerializer(serializers.ModelSerializer[Patient]):
    external_id = serializers.CharField(
        max_length=64,
        allow_null=True,
        required=False,
        validators=[UniqueValidator(Patient.objects.all(), EXTERNAL_ID_TAKEN)],
        help_text="The patient's id in another system. No two patients have the same.",
    )
    language = LanguageField(
        max_length=languages.MAX_LENGTH,
        required=False,
        help_text="A language code of ISO 639, alone or with a region or script, for example en, de-AT or zh-Hant.",
    )
    voice = serializers.PrimaryKeyRelatedField(
        queryset=Voice.objects.filter(state=Voice.State.USABLE),
        pk_field=serializers.UUIDField(),
        allow_null=True,
        required=False,
        help_text="A stock voice or a clone of this patient. null: the default voice.",
    )
    backup_voice = serializers.PrimaryKeyRelatedField(
        queryset=Voice.objects.filter(state=Voice.State.USABLE),
        pk_field=serializers.UUIDField(),
        allow_null=True,
        required=False,
        help_text="Speaks when `voice` cannot: a stock voice or a clone of this patient. null: the default voice.",
    )
    backup_policy = serializers.ChoiceField(
        choices=Patient.BackupPolicy.choices,
        required=False,
        help_text="With `own_voice_only`, the patient hears only `voice` and the offline voice. It needs a `voice`.",
    )
    speech_rate = SpeechRateField(
        max_digits=3, decimal_places=2, min_value=Decimal("0.70"), max_value=Decimal("1.20"), required=False
    )
    monthly_character_budget = serializers.IntegerField(
        min_value=0, max_value=MAX_BUDGET, allow_null=True, required=False, help_text="null: no limit."
    )
    clinic = serializers.PrimaryKeyRelatedField(
        queryset=Clinic.objects.all(),
        pk_field=serializers.UUIDField(),
        allow_null=True,
        required=False,
        help_text="The clinic of the patient, or null. A change needs the permission patients.change_clinic.",
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
            "external_id",
            "companion_name",
            "language",
            "voice",
            "backup_voice",
            "backup_policy",
            "speech_rate",
            "monthly_character_budget",
            "clinic",
            "archived",
            "created_at",
        )
        read_only_fields = ("id", "created_at")

    def validate_language(self, language: str) -> str:
        """Rejects a language that is not in the list.

        The value that the patient already has is accepted, even if it is an old one that is not in the list.
        """
        is_kept = self.instance is not None and language == self.instance.language
        if not is_kept and not languages.is_listed(language):
            known = ", ".join(languages.LANGUAGES)
            raise serializers.ValidationError(f"Not a known language. Known are: {known}.", "unknown_language")
        return language

    def validate_voice(self, voice: Voice | None) -> Voice | None:
        """Rejects a clone of another patient.

        The message is the one for an unknown voice, so that callers cannot find out which voices other patients have.
        """
        patient_id = self.instance.pk if self.instance else None
        if voice is not None and voice.source == Voice.Source.CLONED and voice.patient_id != patient_id:
            raise serializers.ValidationError(f'Invalid pk "{voice.pk}" - object does not exist.', "does_not_exist")
        return voice

    validate_backup_voice = validate_voice

    def validate_clinic(self, clinic: Clinic | None) -> Clinic | None:
        """Raises PermissionDenied (403) for another clinic if the user may not choose it.

        The clinic decides who sees the patient and which budget counts.
        """
        current = self.instance.clinic_id if self.instance else None
        is_changed = current != (clinic.pk if clinic else None)
        if is_changed and not may(self.context["request"].user, CHANGE_CLINIC):
            raise PermissionDenied(f"You need the permission {CHANGE_CLINIC} to choose the clinic of a patient.")
        return clinic

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Rejects a policy that would leave the patient with the offline voice alone.

        Other fields can be changed while that is so, for example after the patient's voice was withdrawn.
        """
        before = self.instance or Patient()
        voice = values.get("voice", before.voice)
        policy = values.get("backup_policy", before.backup_policy)
        is_changed = not {"voice", "backup_policy"}.isdisjoint(values)
        if is_changed and voice is None and policy == Patient.BackupPolicy.OWN_VOICE_ONLY:
            raise serializers.ValidationError({"backup_policy": OWN_VOICE_NEEDED}, "voice_needed")
        return values

    def to_internal_value(self, data: Any) -> Any:  # noqa: ANN401 - DRF's signature
        values = super().to_internal_value(data)
        if "archived" in values:
            archived_at = self.instance.archived_at if self.instance else None
            values["archived_at"] = (archived_at or timezone.now()) if values.pop("archived") else None
        return values

    def to_representation(self, patient: Patient) -> dict[str, Any]:
        return {**super().to_representation(patient), "archived": patient.archived_at is not None}

    def create(self, values: dict[str, Any]) -> Patient:
        with _external_id_checked():
            return super().create(values)

    def update(self, patient: Patient, values: dict[str, Any]) -> Patient:
        """Saves only the fields that the request contains.

        The others may have changed in the meantime, for example the voice when a clone became ready.
        """
        for name, value in values.items():
            setattr(patient, name, value)
        with _external_id_checked():
            patient.save(update_fields=values)
        return patient


@contextmanager
def _external_id_checked() -> Iterator[None]:
    """Reports an external id that another request has taken since the validation as an invalid field."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        if "external_id" not in str(error):
            raise
        raise serializers.ValidationError({"external_id": [EXTERNAL_ID_TAKEN]}, "unique") from None


class PatientFilter(serializers.Serializer):
    """The parameters of the list of patients."""

    search = serializers.CharField(
        required=False, max_length=200, help_text="Words of the names, or a whole external id. Each word must occur."
    )
    external_id = serializers.CharField(required=False, max_length=64)
    language = serializers.CharField(required=False, max_length=languages.MAX_LENGTH)
    clinic = serializers.UUIDField(required=False)
    voice = serializers.UUIDField(required=False)
    archived = serializers.BooleanField(required=False)
    ordering = serializers.ChoiceField(
        required=False,
        choices=("name", "-name", "created_at", "-created_at"),
        help_text="The default is `name`. With a minus sign, the order is reversed.",
    )


class ErasureSerializer(serializers.Serializer):
    erases_at = serializers.DateTimeField(help_text="When the data is removed. Until then it can be undone.")


@extend_schema_serializer(examples=[DEVICE_EXAMPLE])
class DeviceSerializer(serializers.ModelSerializer[Device]):
    class Meta:
        model = Device
        fields = ("id", "name", "format", "last_seen", "revoked_at", "created_at")
        read_only_fields = ("id", "format", "last_seen", "revoked_at", "created_at")


class DeviceFilter(serializers.Serializer):
    """The parameters of the list of a patient's devices."""

    revoked = serializers.BooleanField(required=False, help_text="Only devices that are revoked, or that are not.")


@extend_schema_serializer(examples=[ISSUED_DEVICE_EXAMPLE])
class IssuedDeviceSerializer(serializers.Serializer):
    """A device with its new token. No other response contains this token."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    token = serializers.CharField()


@extend_schema_serializer(examples=[CLINIC_EXAMPLE])
class ClinicSerializer(serializers.ModelSerializer[Clinic]):
    class Meta:
        model = Clinic
        fields = ("id", "name")


@extend_schema_serializer(examples=[VOICE_EXAMPLE])
class VoiceSerializer(serializers.ModelSerializer[Voice]):
    class Meta:
        model = Voice
        fields = ("id", "name", "source", "provider_id", "state")


class VoiceFilter(serializers.Serializer):
    """The parameters of the list of voices."""

    source = serializers.ChoiceField(  # type: ignore[assignment]  # the metaclass removes the attribute
        Voice.Source.choices, required=False
    )
    state = serializers.ChoiceField(Voice.State.choices, required=False)
    patient = serializers.UUIDField(required=False, help_text="Only the voice clones of this patient.")
