"""Request and response bodies of the speech API. Texts are accepted but never returned."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from tts.models import STATE_CHOICES, Conversation, Utterance
from tts.protocol.text_assembler import MAX_TEXT_LENGTH
from tts.states import SERVER_PREFIX, UtteranceState
from tts.text.tags import strip_tags
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.core import languages
from voicecare.patients.api import visible_voices
from voicecare.patients.models import Voice
from voicecare.patients.serializers import LanguageField

CONVERSATION = OpenApiExample(
    "A conversation",
    {
        "id": "c4f1f9e2-6a39-4f0e-9f3d-3e1c6f0d7b21",
        "patient": "0b7c0a51-5c1e-4f7e-8a53-2f6f3c1f9d10",
        "device": "5b0e3d1c-77c2-4f6b-8a0f-9d1f2a3b4c5d",
        "voice": {"id": "9a7b6c5d-4e3f-4a2b-8c1d-0e9f8a7b6c5d", "name": "Sarah"},
        "voice_source": "selected",
        "format": "mp3_44100_128",
        "initiated": "device",
        "tts_characters_used": 412,
        "started_at": "2026-11-23T11:58:00Z",
        "ended_at": "2026-11-23T12:10:00Z",
    },
    response_only=True,
)
SPOKEN = OpenApiExample(
    "A sentence",
    {
        "id": "7d1f2c9e-8a0b-4c57-9f6e-0b1a2c3d4e5f",
        "patient": "0b7c0a51-5c1e-4f7e-8a53-2f6f3c1f9d10",
        "conversation": "c4f1f9e2-6a39-4f0e-9f3d-3e1c6f0d7b21",
        "status": "spoken",
        "code": "",
        "created_at": "2026-11-23T11:58:00Z",
        "expires_at": None,
        "spoken_at": "2026-11-23T11:58:01Z",
        "heard_at": None,
        "played_ms": 2140,
        "client_id": "say-1",
        "origin": "device",
        "source": "live",
        "characters": 38,
    },
    response_only=True,
)
DEFAULT_EXPIRY_S = 900
MAX_EXPIRY_S = 7 * 24 * 3600


class TextSerializer(serializers.Serializer):
    text = serializers.CharField(max_length=MAX_TEXT_LENGTH, trim_whitespace=False)

    def validate_text(self, text: str) -> str:
        if not text.strip():
            self.fields["text"].fail("blank")
        return text


class SpeakSerializer(TextSerializer):
    """The text has no audio tags after validation: it is stored as a transcript, and any voice may speak it."""

    def validate_text(self, text: str) -> str:
        return super().validate_text(strip_tags(text))

    expires_in_s = serializers.IntegerField(
        min_value=1, max_value=MAX_EXPIRY_S, default=DEFAULT_EXPIRY_S, help_text="Seconds until the text expires."
    )


class UsableVoiceField(serializers.PrimaryKeyRelatedField[Voice]):
    def get_queryset(self) -> QuerySet[Voice]:
        usable = visible_voices(self.context["request"]).filter(state=Voice.State.USABLE)
        return usable.select_related("patient")


class SpeechSerializer(TextSerializer):
    voice = UsableVoiceField(
        pk_field=serializers.UUIDField(), required=False, allow_null=True, help_text="null means the default voice."
    )
    format = serializers.ChoiceField(DEVICE_FORMATS, default=DEVICE_FORMATS[0])


class PreviewFilter(serializers.Serializer):
    language = LanguageField(
        max_length=languages.MAX_LENGTH,
        default=languages.DEFAULT,
        help_text="The language that a stock voice speaks. A voice clone speaks the language of its patient.",
    )
    speech_rate = serializers.DecimalField(
        max_digits=3,
        decimal_places=2,
        min_value=Decimal("0.70"),
        max_value=Decimal("1.20"),
        default=Decimal("1.00"),
        help_text="The speech rate of a stock voice. A voice clone speaks at the rate of its patient.",
    )

    def validate_language(self, language: str) -> str:
        if not languages.is_listed(language):
            raise serializers.ValidationError("Not a known language.", "unknown_language")
        return language


class AcceptedSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(STATE_CHOICES)


class UtteranceSerializer(serializers.ModelSerializer[Utterance]):
    status = serializers.SerializerMethodField()
    code = serializers.SerializerMethodField(help_text="The reason of a failure; empty otherwise.")
    created_at = serializers.DateTimeField(source="received_at")

    class Meta:
        model = Utterance
        fields: tuple[str, ...] = (
            "id",
            "patient",
            "conversation",
            "status",
            "code",
            "created_at",
            "expires_at",
            "spoken_at",
            "heard_at",
            "played_ms",
        )

    @extend_schema_field(serializers.ChoiceField(STATE_CHOICES))
    def get_status(self, utterance: Utterance) -> str:
        return UtteranceState.EXPIRED.value if has_expired(utterance) else utterance.state

    def get_code(self, utterance: Utterance) -> str:
        return "expired" if has_expired(utterance) else utterance.code


@extend_schema_serializer(examples=[SPOKEN])
class SpokenSerializer(UtteranceSerializer):
    """An utterance in the list of its conversation's utterances."""

    client_id = serializers.SerializerMethodField(help_text="The id of the speech on the WebSocket.")

    class Meta(UtteranceSerializer.Meta):
        fields = (*UtteranceSerializer.Meta.fields, "client_id", "origin", "source", "characters")

    def get_client_id(self, utterance: Utterance) -> str:
        return utterance.client_speech_id or f"{SERVER_PREFIX}{utterance.pk}"


class ConversationVoiceSerializer(serializers.ModelSerializer[Voice]):
    class Meta:
        model = Voice
        fields = ("id", "name")


@extend_schema_serializer(examples=[CONVERSATION])
class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    voice = ConversationVoiceSerializer(
        allow_null=True, help_text="null: the provider had no usable voice, and the offline voice spoke."
    )

    class Meta:
        model = Conversation
        fields = (
            "id",
            "patient",
            "device",
            "voice",
            "voice_source",
            "format",
            "initiated",
            "tts_characters_used",
            "started_at",
            "ended_at",
        )


@extend_schema_field({"type": "string", "example": "2026-11-23"})
class DateOrTimeField(serializers.Field):
    """A query parameter that is a time, or a date, which means the whole day in USAGE_TIME_ZONE.

    The value is a datetime with a time zone. With `ends`, it is the exclusive end of a range: just after the given day
    or time.
    """

    default_error_messages = {"invalid": "Enter a date like 2026-11-23 or a time like 2026-11-23T08:00:00Z."}

    def __init__(self, *, ends: bool = False, **keywords: Any) -> None:  # noqa: ANN401 - DRF's own
        super().__init__(required=False, **keywords)
        self._ends = ends

    def to_internal_value(self, data: str) -> datetime:
        zone = ZoneInfo(settings.USAGE_TIME_ZONE)
        try:
            if len(data) <= 10:
                day = date.fromisoformat(data) + timedelta(days=1 if self._ends else 0)
                return datetime.combine(day, time(), zone)
            moment = datetime.fromisoformat(data)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=zone)
            return moment.astimezone(ZoneInfo("UTC")) + timedelta(microseconds=1 if self._ends else 0)
        except (ValueError, OverflowError):
            self.fail("invalid")


class ConversationFilter(serializers.Serializer):
    patient = serializers.UUIDField(required=False)
    device = serializers.UUIDField(required=False)
    ordering = serializers.ChoiceField(
        ("started_at", "-started_at"), required=False, help_text="The default is `-started_at`, newest first."
    )

    def get_fields(self) -> dict[str, serializers.Field]:
        return {**super().get_fields(), "from": DateOrTimeField(), "to": DateOrTimeField(ends=True)}


def has_expired(utterance: Utterance) -> bool:
    """Whether the utterance has expired, even if the periodic sweep has not marked it yet."""
    waits = utterance.state in (UtteranceState.WAITING, UtteranceState.QUEUED)
    return waits and utterance.expires_at is not None and utterance.expires_at <= timezone.now()
