"""Having something said to a patient, and looking at what was said."""

import re
import uuid
from typing import Any, cast

from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import generics
from rest_framework.exceptions import APIException
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tts.api.serializers import (
    AcceptedSerializer,
    ConversationFilter,
    ConversationSerializer,
    SpeakSerializer,
    SpeechSerializer,
    SpokenSerializer,
    UtteranceSerializer,
)
from tts.api.streaming import StreamingSpeech, context_for_voice, preview_for_voice
from tts.conversations.context import SpeechContext
from tts.models import Conversation, Utterance
from tts.outbox import store
from tts.runtime import runtime
from tts.states import Source, UtteranceState
from tts.synthesis.pipeline import SpeechFailed
from voicecare.api.schema import ErrorSerializer
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS
from voicecare.patients.api import visible_voices
from voicecare.patients.models import Patient, Voice

_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")
IDEMPOTENCY_KEY_HEADER = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="Makes a repeat safe: the same key with the same body is answered as before and says nothing twice.",
)
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
    },
    response_only=True,
)


class InvalidIdempotencyKey(APIException):
    status_code = 400
    default_code = "bad_idempotency_key"
    default_detail = "`Idempotency-Key` must have 1 to 255 printable ASCII characters."


SPEECH_SOURCE_HEADER = OpenApiParameter(
    "Speech-Source",
    str,
    OpenApiParameter.HEADER,
    response=[200],
    enum=list(Source),
    description="Where the first sound is from; `backup` and `offline` are not the voice that was asked for.",
)
SPEECH_UNAVAILABLE = OpenApiResponse(ErrorSerializer, "`no_voice` or `going_down`: nothing can speak right now.")
_AUDIO_RESPONSES = {(200, FORMATS[name].mime): OpenApiTypes.BINARY for name in DEVICE_FORMATS}


class Speak(APIView):
    @extend_schema(
        parameters=[IDEMPOTENCY_KEY_HEADER],
        request=SpeakSerializer,
        responses={
            202: AcceptedSerializer,
            409: OpenApiResponse(ErrorSerializer, "`idempotency_conflict`: the key came with another body before."),
        },
        examples=[LUNCH, ACCEPTED],
    )
    def post(self, request: Request, id: uuid.UUID) -> Response:
        """Has a text said to the patient, on the device that connected last, as soon as one is there."""
        patient = get_object_or_404(Patient.objects.visible_to(request.user), pk=id, archived_at=None)
        order = SpeakSerializer(data=request.data)
        order.is_valid(raise_exception=True)
        key, author = _idempotency_key(request), cast(User, request.user)
        utterance = store.submit(patient.pk, **order.validated_data, author=author, idempotency_key=key)
        # Not the row's state, which may have moved on: a repeat is answered like the first time.
        return Response(AcceptedSerializer({"id": utterance.pk, "status": UtteranceState.WAITING}).data, 202)


class UtteranceDetail(generics.RetrieveAPIView):
    """What became of something that was to be said, whoever asked for it."""

    serializer_class = UtteranceSerializer
    lookup_field = "id"

    def get_queryset(self) -> QuerySet[Utterance]:
        return Utterance.objects.filter(patient__in=Patient.objects.visible_to(self.request.user))

    @extend_schema(examples=[HEARD])
    def get(self, request: Request, id: uuid.UUID) -> Response:
        return super().get(request, id=id)


class ConversationList(generics.ListAPIView):
    """The conversations of the caller's patients, the latest first."""

    serializer_class = ConversationSerializer

    def get_queryset(self) -> QuerySet[Conversation]:
        wanted = ConversationFilter(data=self.request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        names = {"patient": "patient_id", "from": "started_at__gte", "to": "started_at__lt"}
        filters = {names[name]: value for name, value in wanted.validated_data.items()}
        return _conversations(self.request).filter(**filters).order_by("-started_at", "pk")

    @extend_schema(parameters=[ConversationFilter])
    def get(self, request: Request) -> Response:
        return super().get(request)


class ConversationDetail(generics.RetrieveAPIView):
    serializer_class = ConversationSerializer
    lookup_field = "id"

    def get_queryset(self) -> QuerySet[Conversation]:
        return _conversations(self.request)


class ConversationUtterances(generics.ListAPIView):
    """What was said in it, in order."""

    serializer_class = SpokenSerializer

    def get_queryset(self) -> QuerySet[Utterance]:
        conversation = get_object_or_404(_conversations(self.request), pk=self.kwargs["id"])
        return conversation.utterances.order_by("received_at", "pk")


class IgnoreAcceptHeader(DefaultContentNegotiation):
    """An answer is sound or JSON, whatever the header says: a player accepts audio alone."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:  # noqa: ANN401
        return renderers[0], renderers[0].media_type


class SpeechUnavailable(APIException):
    def __init__(self, code: str, detail: str, status_code: int) -> None:
        super().__init__(detail, code)
        self.status_code = status_code


class SpeechAudio(APIView):
    content_negotiation_class = IgnoreAcceptHeader

    @extend_schema(
        operation_id="speech",
        parameters=[SPEECH_SOURCE_HEADER],
        request=SpeechSerializer,
        responses={**_AUDIO_RESPONSES, 503: SPEECH_UNAVAILABLE},
        examples=[OpenApiExample("A sentence", {"text": "Good morning.", "format": "mp3_22050_32"}, request_only=True)],
    )
    def post(self, request: Request) -> StreamingHttpResponse:
        """The text as sound, sent while it is spoken. 400 `text_rejected`: the provider refuses this text."""
        order = SpeechSerializer(data=request.data, context={"request": request})
        order.is_valid(raise_exception=True)
        wanted = order.validated_data
        context = context_for_voice(wanted.get("voice") or Voice.objects.default(), wanted["format"])
        return _stream(wanted["text"], context)


class VoicePreview(APIView):
    content_negotiation_class = IgnoreAcceptHeader
    http_method_names = ("get", "options")  # a HEAD would have it spoken for nobody

    @extend_schema(
        operation_id="preview_voice",
        parameters=[SPEECH_SOURCE_HEADER],
        responses={(200, FORMATS[DEVICE_FORMATS[0]].mime): OpenApiTypes.BINARY, 503: SPEECH_UNAVAILABLE},
    )
    def get(self, request: Request, id: uuid.UUID) -> StreamingHttpResponse:
        """A set phrase in this voice, sent while it is spoken; kept like any phrase, so the next time costs nothing."""
        usable = visible_voices(request).filter(state=Voice.State.USABLE).select_related("patient")
        return _stream(*preview_for_voice(get_object_or_404(usable, pk=id), DEVICE_FORMATS[0]))


def _stream(text: str, context: SpeechContext) -> StreamingHttpResponse:
    """Whatever goes wrong before the first byte is an answer like any other."""
    if runtime.draining:
        raise SpeechUnavailable("going_down", "This server is going down: try again.", 503)
    speech = StreamingSpeech(text, context, runtime.dependencies)
    try:
        # On the server's event loop, which owns the services; this thread waits for the first byte alone.
        body = async_to_sync(speech.start)()
    except SpeechFailed as failure:
        raise _api_error(failure) from failure
    response = StreamingHttpResponse(body, content_type=FORMATS[context.speech_settings.format].mime)
    response["Speech-Source"] = speech.source
    return response


def _api_error(failure: SpeechFailed) -> SpeechUnavailable:
    if failure.code == SpeechFailed.NO_VOICE:
        return SpeechUnavailable(failure.code, "Neither the speech provider nor this server can speak right now.", 503)
    return SpeechUnavailable(failure.code, "The speech provider refuses this text.", 400)


def _conversations(request: Request) -> QuerySet[Conversation]:
    visible = Patient.objects.visible_to(request.user)
    return Conversation.objects.filter(patient__in=visible).select_related("voice")


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("Idempotency-Key")
    if key is not None and (not _IDEMPOTENCY_KEY.fullmatch(key) or not key.strip()):
        raise InvalidIdempotencyKey
    return key or ""
