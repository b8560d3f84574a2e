"""Request and response bodies of pronunciations, the entries of the lexicon."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied

from tts.conversations.lexicon_rules import ONE_SCOPE, TAKEN, clean_spoken, clean_written
from tts.models import LexiconEntry
from voicecare.core import languages
from voicecare.patients.access import CHANGE_CLINIC, may
from voicecare.patients.models import Clinic, Patient

CLINIC_PERMISSION_NEEDED = (
    f"You need the permission {CHANGE_CLINIC} for pronunciations of everybody and of a clinic. Others have a patient."
)
PRONUNCIATION_EXAMPLE = OpenApiExample(
    "A name",
    {
        "id": 52,
        "written": "Siobhan",
        "spoken": "Shivawn",
        "match_case": False,
        "language": "",
        "patient": "0b7c0a51-5c1e-4f7e-8a53-2f6f3c1f9d10",
        "clinic": None,
        "note": "Her daughter",
        "changed_at": "2026-11-23T11:58:00Z",
    },
    response_only=True,
)


@extend_schema_field({"type": "string", "pattern": "^[a-z]{2,3}$"})
class TextLanguageField(serializers.CharField):
    """A language code of the list, without a region. The schema adds the empty text where it is allowed."""


class VisiblePatientField(serializers.PrimaryKeyRelatedField[Patient]):
    def get_queryset(self) -> QuerySet[Patient]:
        """Return the patients that the user may see.

        The chosen one is locked, so that an erasure which begins meanwhile deletes the entry, too.
        """
        return Patient.objects.visible_to(self.context["request"].user).select_for_update(no_key=True)


@extend_schema_serializer(examples=[PRONUNCIATION_EXAMPLE])
class PronunciationSerializer(serializers.ModelSerializer[LexiconEntry]):
    language = TextLanguageField(
        required=False,
        allow_blank=True,
        help_text="The language of the texts in which it is said so, for example en. Empty: of all texts.",
    )
    patient = VisiblePatientField(
        pk_field=serializers.UUIDField(),
        allow_null=True,
        required=False,
        help_text="Only for this patient. null, without a clinic: for everybody.",
    )
    clinic = serializers.PrimaryKeyRelatedField(
        queryset=Clinic.objects.all(),
        pk_field=serializers.UUIDField(),
        allow_null=True,
        required=False,
        help_text="Only for the patients of this clinic. Needs the permission patients.change_clinic.",
    )

    class Meta:
        model = LexiconEntry
        fields = ("id", "written", "spoken", "match_case", "language", "patient", "clinic", "note", "changed_at")
        read_only_fields = ("id", "changed_at")
        validators: list[Any] = []  # `validate` checks what is unique, with the message of the admin

    def validate_written(self, written: str) -> str:
        return clean_written(written)

    def validate_spoken(self, spoken: str) -> str:
        return clean_spoken(spoken)

    def validate_language(self, language: str) -> str:
        if language and language not in languages.LANGUAGES:
            known = ", ".join(languages.LANGUAGES)
            raise serializers.ValidationError(f"Not a known language. Known are: {known}.", "unknown_language")
        return language

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Check the entry as it will be. Raises PermissionDenied (403) if the user may write those of patients only."""
        before = self.instance or LexiconEntry()
        names = ("written", "language", "match_case", "clinic", "patient")
        after = LexiconEntry(pk=before.pk, **{name: values.get(name, getattr(before, name)) for name in names})
        if after.patient is None and not may(self.context["request"].user, CHANGE_CLINIC):
            raise PermissionDenied(CLINIC_PERMISSION_NEEDED)
        if after.clinic and after.patient:
            raise serializers.ValidationError({"patient": ONE_SCOPE}, "clinic_or_patient")
        if LexiconEntry.objects.duplicates_of(after).exists():
            raise serializers.ValidationError({"written": TAKEN}, "unique")
        return values

    def create(self, values: dict[str, Any]) -> LexiconEntry:
        with _uniqueness_checked():
            return super().create(values)

    def update(self, entry: LexiconEntry, values: dict[str, Any]) -> LexiconEntry:
        with _uniqueness_checked():
            return super().update(entry, values)


@contextmanager
def _uniqueness_checked() -> Iterator[None]:
    """Report an entry that another request has added since the validation as an invalid field."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        if "written" not in str(error):
            raise
        raise serializers.ValidationError({"written": [TAKEN]}, "unique") from None


class PronunciationFilter(serializers.Serializer):
    """The parameters of the list of pronunciations."""

    SCOPES = {
        "everybody": Q(clinic=None, patient=None),
        "clinic": Q(clinic__isnull=False),
        "patient": Q(patient__isnull=False),
    }

    scope = serializers.ChoiceField(
        tuple(SCOPES), required=False, help_text="Only those of everybody, of a clinic, or of a patient."
    )
    patient = serializers.UUIDField(required=False)
    clinic = serializers.UUIDField(required=False)
    language = TextLanguageField(required=False, allow_blank=True, help_text="Empty: those for all languages.")
    search = serializers.CharField(
        required=False, max_length=200, help_text="Words of the written form, spoken form or note. Each must occur."
    )
