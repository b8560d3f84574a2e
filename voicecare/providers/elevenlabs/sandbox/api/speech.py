"""The provider's endpoints for speech and for dialogues: complete or streamed, each without or with timestamps."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.account.account import Reservation
from voicecare.providers.elevenlabs.sandbox.account.concurrency import Slot
from voicecare.providers.elevenlabs.sandbox.account.synthesizer import Synthesizer
from voicecare.providers.elevenlabs.sandbox.api.middleware import WebHandler, answer_or_refuse
from voicecare.providers.elevenlabs.sandbox.api.speech_request import (
    ParsedSpeechRequest,
    flatten_dialogue,
    parse_json,
    parse_speech_request,
    requested_format,
)
from voicecare.providers.elevenlabs.sandbox.api.timestamps import audio_with_timestamps, streamed_audio_with_timestamps
from voicecare.providers.elevenlabs.sandbox.errors import JSON_TYPE, ApiError, preset_error
from voicecare.providers.elevenlabs.sandbox.faults.faults import RequestInfo
from voicecare.providers.elevenlabs.sandbox.faults.injection import single_chunk
from voicecare.providers.elevenlabs.sandbox.faults.response import ResponseWriter
from voicecare.providers.elevenlabs.sandbox.records import BilledRequest, SpeechRecord, new_provider_id
from voicecare.providers.elevenlabs.sandbox.state import SANDBOX, Sandbox
from voicecare.providers.espeak.client import SynthesizerUnavailable

SPEECH_PATH, DIALOGUE_PATH = "/v1/text-to-speech/{voice_id}", "/v1/text-to-dialogue"
BodyFactory = Callable[[Synthesizer, ParsedSpeechRequest], AsyncGenerator[bytes, None]]


def _plain_audio(synthesizer: Synthesizer, speech: ParsedSpeechRequest) -> AsyncGenerator[bytes, None]:
    return synthesizer.speak(speech.spoken_text, speech.espeak_voice, speech.audio_format.name)


def speech_endpoint(make_body: BodyFactory = _plain_audio, *, streaming: bool, content_type: str = "") -> WebHandler:
    """Returns the request handler of a speech endpoint.

    It sends a chunked response if `streaming`, otherwise a complete response with its length. `make_body` makes the
    body of the response from the parsed request.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        sandbox = request.app[SANDBOX]
        body: object = None
        malformed: ApiError | None = None
        is_dialogue = request.path.startswith(DIALOGUE_PATH)
        voice_id = request.match_info.get("voice_id", "")
        try:
            body = parse_json(await request.read())
            if is_dialogue:
                body, voice_id = flatten_dialogue(body)
        except ApiError as error:
            malformed = error
        record = _speech_record(request, body, voice_id)
        sandbox.request_log.add(record)
        text = record.text if isinstance(record.text, str) else ""
        fault = sandbox.faults.find_for(RequestInfo(request.path, request.method, text, record.voice_id))
        writer = ResponseWriter(request, fault, record)
        speech_handler = _SpeechHandler(sandbox, record, writer, make_body, content_type)

        async def answer() -> web.StreamResponse:
            if malformed is not None:
                raise malformed
            speech = parse_speech_request(
                body,
                request.query,
                record.voice_id,
                sandbox.voices,
                streaming=streaming,
                config=sandbox.config,
                is_dialogue=is_dialogue,
            )
            return await speech_handler.respond(speech, streaming)

        try:
            return await answer_or_refuse(request, writer, answer)
        except (asyncio.CancelledError, ConnectionError):
            if record.outcome == "open":
                record.outcome = "cancelled"
            raise
        finally:
            if record.outcome == "open":
                record.outcome = "failed"

    return handler


def _speech_record(request: web.Request, body: object, voice_id: str) -> SpeechRecord:
    fields = body if isinstance(body, dict) else {}
    text = fields.get("text")
    return SpeechRecord(
        path=request.path,
        voice_id=voice_id,
        text=text,
        characters=len(text) if isinstance(text, str) else 0,
        output_format=requested_format(request),
        model_id=fields.get("model_id"),
        previous_text=fields.get("previous_text"),
        next_text=fields.get("next_text"),
        language_code=fields.get("language_code"),
        voice_settings=fields.get("voice_settings"),
    )


class _SpeechHandler:
    """Responds to one valid speech request.

    It bills the account that existed when the request arrived, so a reset during the request does not affect it.
    """

    def __init__(
        self, sandbox: Sandbox, record: SpeechRecord, writer: ResponseWriter, make_body: BodyFactory, content_type: str
    ) -> None:
        self._sandbox = sandbox
        self._account = sandbox.account
        self._record = record
        self._writer = writer
        self._make_body = make_body
        self._content_type = content_type

    async def respond(self, speech: ParsedSpeechRequest, streaming: bool) -> web.StreamResponse:
        """Synthesizes, bills and sends the speech.

        Raises ApiError if the quota, the concurrency limit or a failure of espeak prevents the speech before the
        headers are sent. Raises ConnectionClosed if espeak fails later.
        """
        if not self._sandbox.config.zero_retention:
            speech = replace(speech, in_history=True)
        self._record.credits = speech.credits
        self._record.enable_logging = speech.in_history
        with (
            self._account.reserve(speech.credits) as reservation,
            self._sandbox.concurrency.hold(speech.model.group) as slot,
        ):
            async with aclosing(self._make_body(self._sandbox.synthesizer, speech)) as chunks:
                due = self._record.at + self._sandbox.config.first_byte_ms / 1000 + slot.wait_s
                try:
                    first = await anext(chunks, b"") if streaming else b"".join([chunk async for chunk in chunks])
                except SynthesizerUnavailable:
                    raise preset_error("internal_error") from None
                await asyncio.sleep(due - time.monotonic())
                try:
                    return await self._send(speech, reservation, slot, first, chunks if streaming else None)
                except SynthesizerUnavailable:
                    self._writer.close_connection()

    async def _send(
        self,
        speech: ParsedSpeechRequest,
        reservation: Reservation,
        slot: Slot,
        first: bytes,
        rest: AsyncGenerator[bytes, None] | None,
    ) -> web.StreamResponse:
        history_item_id = new_provider_id()
        headers = {
            "Content-Type": self._content_type or speech.audio_format.mime,
            "request-id": self._record.request_id,
            "character-cost": str(speech.credits),
            "current-concurrent-requests": str(slot.in_flight),
            "maximum-concurrent-requests": str(slot.limit),
            "tts-latency-ms": str(round((time.monotonic() - self._record.at) * 1000)),
        }
        if speech.in_history:
            headers["history-item-id"] = history_item_id

        def bill() -> None:
            before, after = reservation.bill()
            self._record.billed = True
            self._account.billed_requests.append(
                BilledRequest(
                    unix=time.time(),
                    history_item_id=history_item_id,
                    request_id=self._record.request_id,
                    voice_id=speech.voice.voice_id,
                    voice_name=speech.voice.name,
                    voice_category=speech.voice.category,
                    model_id=speech.model.model_id,
                    text=speech.text,
                    characters=len(speech.text),
                    credits=speech.credits,
                    before=before,
                    after=after,
                    content_type=headers["Content-Type"],
                    kept=speech.in_history,
                )
            )

        chunks = single_chunk(first) if rest is None else _prepend(first, rest)
        length = len(first) if rest is None else None
        return await self._writer.send(headers, chunks, length=length, on_headers=bill)


async def _prepend(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk


def add_routes(router: web.UrlDispatcher) -> None:
    for path in (SPEECH_PATH, DIALOGUE_PATH):
        router.add_post(path, speech_endpoint(streaming=False))
        router.add_post(f"{path}/stream", speech_endpoint(streaming=True))
        router.add_post(
            f"{path}/with-timestamps", speech_endpoint(audio_with_timestamps, streaming=False, content_type=JSON_TYPE)
        )
        router.add_post(
            f"{path}/stream/with-timestamps",
            speech_endpoint(streamed_audio_with_timestamps, streaming=True, content_type=JSON_TYPE),
        )
