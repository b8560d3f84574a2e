"""REST endpoints: queue text for a patient, stream speech, and read what was spoken."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.exceptions import APIException
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tts.api import messages
from tts.api.serializers import (
    AcceptedSerializer,
    ConversationFilter,
    ConversationSerializer,
    PreviewFilter,
    SpeakSerializer,
    SpeechSerializer,
    SpokenSerializer,
    UtteranceSerializer,
)
from tts.api.streaming import ShuttingDown, StreamingSpeech, context_for_voice, preview_for_voice
from tts.models import Conversation, Utterance
from tts.runtime import runtime
from tts.states import Source, UtteranceState
from tts.synthesis.pipeline import SpeechFailed
from tts.synthesis.response_speeches import MAX_SPEECHES_PER_USER, ResponseSpeeches, TooManySpeeches
from voicecare.api import idempotency
from voicecare.api.pagination import CursorPagination, refuse_unknown
from voicecare.api.ranges import range_response
from voicecare.api.schema import ErrorSerializer
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.api import visible_voices
from voicecare.patients.models import Patient, Voice

_Result = TypeVar("_Result")

LUNCH = OpenApiExample("Lunch", {"text": "Lunch is ready.", "expires_in_s": 600}, request_only=True)
ACCEPTED = OpenApiExample(
    "Accepted",
    {"id": "7d1f2c9e-8a0b-4c57-9f6e-0b1a2c3d4e5f", "status": "waiting"},
    response_only=True,
    status_codes=["202"],
)
HEARD = OpenApiExample(
    "Heard",
    {
        "id": "7d1f2c9e-8a0b-4c57-9f6e-0b1a2c3d4e5f",
        "patient": "0b7c0a51-5c1e-4f7e-8a53-2f6f3c1f9d10",
        "conversation": "c4f1f9e2-6a39-4f0e-9f3d-3e1c6f0d7b21",
        "status": "heard",
        "code": "",
        "created_at": "2026-11-23T11:58:00Z",
        "expires_at": "2026-11-23T12:08:00Z",
        "spoken_at": "2026-11-23T11:58:01Z",
        "heard_at": "2026-11-23T11:58:04Z",
        "played_ms": 2140,
    },
    response_only=True,
)


SPEECH_SOURCE_HEADER = OpenApiParameter(
    "Speech-Source",
    str,
    OpenApiParameter.HEADER,
    response=[200],
    enum=list(Source),
    description="The source of the first audio. `backup` and `offline` are not the requested voice.",
)
RETRY_AFTER_HEADER = OpenApiParameter(
    "Retry-After", int, OpenApiParameter.HEADER, response=[429], description="Seconds."
)
SPEECH_ERRORS: dict[int, Any] = {
    429: OpenApiResponse(
        ErrorSerializer,
        f"`too_many_speeches`: the user has {MAX_SPEECHES_PER_USER} running already.",
    ),
    503: OpenApiResponse(ErrorSerializer, "`no_voice` or `going_down`: no speech is possible right now."),
}
RANGE_HEADER = OpenApiParameter(
    "Range", str, OpenApiParameter.HEADER, description="One range of bytes, as media players send it."
)
PREVIEW_MIME = FORMATS[DEVICE_FORMATS[0]].mime
GOING_DOWN = "This server is shutting down. Try again."
_AUDIO_RESPONSES = {(200, FORMATS[name].mime): OpenApiTypes.BINARY for name in DEVICE_FORMATS}


class Speak(APIView):
    required_permissions = {"POST": "tts.add_utterance"}

    @extend_schema(
        operation_id="speak_to_patient",
        summary="Speak a text on the patient's device",
        parameters=[idempotency.HEADER],
        request=SpeakSerializer,
        responses={
            202: AcceptedSerializer,
            409: idempotency.CONFLICT,
        },
        examples=[LUNCH, ACCEPTED],
    )
    def post(self, request: Request, id: uuid.UUID) -> Response:
        """Queue a text to be spoken on the patient's most recently connected device."""
        patient = get_object_or_404(Patient.objects.visible_to(request.user), pk=id, archived_at=None)
        serializer = SpeakSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        key = idempotency.key_of(request)
        utterance = messages.send(request, patient, **serializer.validated_data, idempotency_key=key)
        # The row's state may have changed since the first request. A retry gets the same answer as the first request.
        return Response(AcceptedSerializer({"id": utterance.pk, "status": UtteranceState.WAITING}).data, 202)


class UtteranceDetail(generics.RetrieveAPIView):
    """The status of one utterance, which was queued over REST or spoken in a conversation."""

    serializer_class = UtteranceSerializer
    required_permissions = {"GET": "tts.view_utterance"}
    lookup_field = "id"

    def get_queryset(self) -> QuerySet[Utterance]:
        return Utterance.objects.filter(patient__in=Patient.objects.visible_to(self.request.user))

    @extend_schema(operation_id="get_utterance", summary="Get the status of an utterance", examples=[HEARD])
    def get(self, request: Request, id: uuid.UUID) -> Response:
        return super().get(request, id=id)


class ConversationList(generics.ListAPIView):
    """The conversations of the caller's patients, newest first."""

    serializer_class = ConversationSerializer
    filter_class = ConversationFilter
    pagination_class = CursorPagination
    required_permissions = {"GET": "tts.view_conversation"}

    def get_queryset(self) -> QuerySet[Conversation]:
        wanted = ConversationFilter(data=self.request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        values = wanted.validated_data
        names = {"patient": "patient_id", "device": "device_id", "from": "started_at__gte", "to": "started_at__lt"}
        filters = {column: values[name] for name, column in names.items() if name in values}
        return _conversations(self.request).filter(**filters).order_by(values.get("ordering", "-started_at"), "pk")

    @extend_schema(operation_id="list_conversations", summary="List conversations", parameters=[ConversationFilter])
    def get(self, request: Request) -> Response:
        return super().get(request)


@extend_schema_view(get=extend_schema(operation_id="get_conversation", summary="Get a conversation"))
class ConversationDetail(generics.RetrieveAPIView):
    serializer_class = ConversationSerializer
    required_permissions = {"GET": "tts.view_conversation"}
    lookup_field = "id"

    def get_queryset(self) -> QuerySet[Conversation]:
        return _conversations(self.request)


@extend_schema_view(
    get=extend_schema(operation_id="list_conversation_utterances", summary="List the utterances of a conversation")
)
class ConversationUtterances(generics.ListAPIView):
    """The utterances of a conversation, earliest first."""

    serializer_class = SpokenSerializer
    pagination_class = CursorPagination
    required_permissions = {"GET": "tts.view_utterance"}

    def get_queryset(self) -> QuerySet[Utterance]:
        conversation = get_object_or_404(_conversations(self.request), pk=self.kwargs["id"])
        return conversation.utterances.order_by("received_at", "pk")


class IgnoreAcceptHeader(DefaultContentNegotiation):
    """Ignores the client's `Accept` header: a media player accepts only audio, but an error is JSON."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:  # noqa: ANN401
        return renderers[0], renderers[0].media_type


class SpeechUnavailable(APIException):
    def __init__(self, code: str, detail: str, status_code: int) -> None:
        super().__init__(detail, code)
        self.status_code = status_code


class TooManySpeechesError(APIException):
    status_code = 429
    default_code = "too_many_speeches"
    default_detail = f"You have {MAX_SPEECHES_PER_USER} speeches running. Read or close one, then try again."
    wait = 5  # seconds; DRF sends it as Retry-After


class SpeechAudio(APIView):
    required_permissions = {"POST": "tts.add_utterance"}
    content_negotiation_class = IgnoreAcceptHeader

    @extend_schema(
        operation_id="stream_speech",
        summary="Speak a text in the response",
        parameters=[SPEECH_SOURCE_HEADER, RETRY_AFTER_HEADER],
        request=SpeechSerializer,
        responses={**_AUDIO_RESPONSES, **SPEECH_ERRORS},
        examples=[OpenApiExample("A sentence", {"text": "Good morning.", "format": "mp3_22050_32"}, request_only=True)],
    )
    def post(self, request: Request) -> StreamingHttpResponse:
        """Stream the text as audio. Fails with 400 `text_rejected` if the provider refuses to speak this text."""
        serializer = SpeechSerializer(data=request.data, context={"request": request})
        serializer.is_valid(raise_exception=True)
        wanted = serializer.validated_data
        context = context_for_voice(wanted.get("voice"), wanted["format"])
        speech = StreamingSpeech(wanted["text"], context, runtime.dependencies)
        body = run_speech(speech.start, request)
        record(request, Action.SPEAK, wanted.get("voice"))
        response = StreamingHttpResponse(body, content_type=FORMATS[wanted["format"]].mime)
        if speech.source:  # a text without a letter or digit has no audio, so it has no source
            response["Speech-Source"] = speech.source
        return response


class VoicePreview(APIView):
    required_permissions = {"GET": "patients.view_voice"}
    content_negotiation_class = IgnoreAcceptHeader
    http_method_names = ("get", "options")  # a HEAD would generate audio that is not sent

    @extend_schema(
        operation_id="preview_voice",
        summary="Listen to a voice",
        parameters=[PreviewFilter, SPEECH_SOURCE_HEADER, RETRY_AFTER_HEADER, RANGE_HEADER],
        responses={
            (200, PREVIEW_MIME): OpenApiTypes.BINARY,
            (206, PREVIEW_MIME): OpenApiTypes.BINARY,
            416: OpenApiResponse(description="The range begins after the end."),
            **SPEECH_ERRORS,
        },
    )
    def get(self, request: Request, id: uuid.UUID) -> HttpResponse:
        """Return a fixed phrase in this voice. Its audio is cached, so the next request costs nothing."""
        usable = visible_voices(request).filter(state=Voice.State.USABLE).select_related("patient")
        voice = get_object_or_404(usable, pk=id)
        refuse_unknown(request, PreviewFilter().fields)
        wanted = PreviewFilter(data=request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        language, speech_rate = wanted.validated_data["language"], wanted.validated_data["speech_rate"]
        preview = preview_for_voice(voice, DEVICE_FORMATS[0], language, float(speech_rate))
        speech = StreamingSpeech(*preview, runtime.dependencies)
        audio = run_speech(speech.collect, request)
        record(request, Action.PLAY_PREVIEW, voice)
        response = range_response(ContentFile(audio), PREVIEW_MIME, request.headers.get("Range", ""))
        response["Speech-Source"] = speech.source
        return response


def run_speech(work: Callable[[ResponseSpeeches, int], Awaitable[_Result]], request: Request | HttpRequest) -> _Result:
    """Start a speech with `work`, on the event loop of the server, and return its result.

    Every failure before the first byte raises an APIException, so that the client gets a normal error response.
    """
    if runtime.draining:
        raise SpeechUnavailable("going_down", GOING_DOWN, 503)
    try:
        # `work` runs on the server's event loop, which owns the dependencies. This thread only waits.
        return async_to_sync(work)(runtime.speeches, cast(User, request.user).pk)
    except TooManySpeeches as error:
        raise TooManySpeechesError from error
    except ShuttingDown as error:
        raise SpeechUnavailable("going_down", GOING_DOWN, 503) from error
    except SpeechFailed as failure:
        if failure.code == SpeechFailed.NO_VOICE:
            detail = "Neither the speech provider nor this server can speak right now."
            raise SpeechUnavailable(failure.code, detail, 503) from failure
        raise SpeechUnavailable(failure.code, "The speech provider refuses this text.", 400) from failure


def _conversations(request: Request) -> QuerySet[Conversation]:
    visible = Patient.objects.visible_to(request.user)
    return Conversation.objects.filter(patient__in=visible).select_related("voice")
