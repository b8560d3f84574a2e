"""The four speech endpoints: one request, from its body to the last byte of sound."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.account.account import Reservation
from voicecare.providers.elevenlabs.sandbox.account.concurrency import Slot
from voicecare.providers.elevenlabs.sandbox.account.synthesizer import Studio
from voicecare.providers.elevenlabs.sandbox.api.middleware import WebHandler, passed
from voicecare.providers.elevenlabs.sandbox.api.speech_request import Order, read_json, read_order, speech_query
from voicecare.providers.elevenlabs.sandbox.api.timestamps import lines_with_times, whole_with_times
from voicecare.providers.elevenlabs.sandbox.errors import JSON_TYPE, ApiError, refusal
from voicecare.providers.elevenlabs.sandbox.faults.faults import Traits
from voicecare.providers.elevenlabs.sandbox.faults.injection import whole
from voicecare.providers.elevenlabs.sandbox.faults.response import Wire
from voicecare.providers.elevenlabs.sandbox.records import Sale, SpeechRecord, provider_id
from voicecare.providers.elevenlabs.sandbox.state import SANDBOX, Sandbox
from voicecare.providers.espeak.client import SynthesizerUnavailable

Maker = Callable[[Studio, Order], AsyncGenerator[bytes, None]]


def _sound(studio: Studio, order: Order) -> AsyncGenerator[bytes, None]:
    return studio.speak(order.text, order.sound, order.format.name)


def speech(maker: Maker = _sound, *, streaming: bool, content_type: str = "") -> WebHandler:
    """A speech endpoint: whole with a length, or `streaming` as it is made."""

    async def handler(request: web.Request) -> web.StreamResponse:
        sandbox = request.app[SANDBOX]
        asked, malformed = _read(await request.read())
        record = _recorded(request, asked)
        sandbox.records.add(record)
        text = record.text if isinstance(record.text, str) else ""
        fault = sandbox.faults.take(Traits(request.path, request.method, text, record.voice_id))
        wire = Wire(request, fault, record)
        performance = _Performance(sandbox, record, wire, maker, content_type)

        async def answer() -> web.StreamResponse:
            if malformed is not None:
                raise malformed
            order = read_order(asked, request.query, record.voice_id, sandbox.voices, streaming=streaming)
            return await performance.give(order, streaming)

        return await _witnessed(record, lambda: passed(request, wire, answer))

    return handler


def _read(raw: bytes) -> tuple[object, ApiError | None]:
    try:
        return read_json(raw), None
    except ApiError as error:
        return None, error


def _recorded(request: web.Request, asked: object) -> SpeechRecord:
    fields = asked if isinstance(asked, dict) else {}
    text = fields.get("text")
    return SpeechRecord(
        path=request.path,
        voice_id=request.match_info["voice_id"],
        text=text,
        characters=len(text) if isinstance(text, str) else 0,
        output_format=speech_query(request),
        model_id=fields.get("model_id"),
        previous_text=fields.get("previous_text"),
        next_text=fields.get("next_text"),
        language_code=fields.get("language_code"),
        voice_settings=fields.get("voice_settings"),
    )


async def _witnessed(record: SpeechRecord, perform: Callable[[], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Closes the record however the performance ends: a cancelled task or a lost connection is a client that left."""
    try:
        return await perform()
    except (asyncio.CancelledError, ConnectionError):
        if record.outcome == "open":
            record.outcome = "cancelled"
        raise
    finally:
        if record.outcome == "open":
            record.outcome = "failed"


class _Performance:
    """One accepted order under way; what it needs of the sandbox is held from its beginning."""

    def __init__(self, sandbox: Sandbox, record: SpeechRecord, wire: Wire, maker: Maker, content_type: str) -> None:
        self._sandbox = sandbox
        self._account = sandbox.account
        self._record = record
        self._wire = wire
        self._maker = maker
        self._content_type = content_type

    async def give(self, order: Order, streaming: bool) -> web.StreamResponse:
        """Raises ApiError for quota, concurrency or lost synthesis before any header, HungUp if it is lost later."""
        self._record.credits = order.credits
        self._record.enable_logging = order.keep
        with self._account.reserved(order.credits) as reservation, self._sandbox.slots.held(order.model.group) as slot:
            async with aclosing(self._maker(self._sandbox.studio, order)) as chunks:
                first = await self._first(chunks, slot, streaming)
                try:
                    return await self._send(order, reservation, slot, first, chunks if streaming else None)
                except SynthesizerUnavailable:
                    self._wire.hang_up()

    async def _first(self, chunks: AsyncGenerator[bytes, None], slot: Slot, streaming: bool) -> bytes:
        """The first piece, or all of it for an answer with a length, and not before the first byte is due."""
        due = self._record.at + self._sandbox.knobs.first_byte_ms / 1000 + slot.wait_s
        beginning = anext(chunks, b"") if streaming else _joined(chunks)
        try:
            first, _ = await asyncio.gather(beginning, asyncio.sleep(due - time.monotonic()))
        except SynthesizerUnavailable:
            raise refusal("internal_error") from None
        return first

    async def _send(
        self,
        order: Order,
        reservation: Reservation,
        slot: Slot,
        first: bytes,
        rest: AsyncGenerator[bytes, None] | None,
    ) -> web.StreamResponse:
        history_item_id = provider_id()
        headers = self._headers(order, slot)
        if order.keep:
            headers["history-item-id"] = history_item_id

        def bill() -> None:
            before, after = reservation.spend()
            self._record.billed = True
            self._account.sales.append(
                Sale(
                    unix=time.time(),
                    history_item_id=history_item_id,
                    request_id=self._record.request_id,
                    voice_id=order.voice.voice_id,
                    voice_name=order.voice.name,
                    voice_category=order.voice.category,
                    model_id=order.model.model_id,
                    text=order.text,
                    characters=len(order.text),
                    credits=order.credits,
                    before=before,
                    after=after,
                    content_type=headers["Content-Type"],
                    kept=order.keep,
                )
            )

        chunks = whole(first) if rest is None else _followed(first, rest)
        length = len(first) if rest is None else None
        return await self._wire.send(headers, chunks, length=length, on_headers=bill)

    def _headers(self, order: Order, slot: Slot) -> dict[str, str]:
        return {
            "Content-Type": self._content_type or order.format.mime,
            "request-id": self._record.request_id,
            "character-cost": str(order.credits),
            "current-concurrent-requests": str(slot.in_flight),
            "maximum-concurrent-requests": str(slot.limit),
            "tts-latency-ms": str(round((time.monotonic() - self._record.at) * 1000)),
        }


async def _joined(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def _followed(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk


def add_routes(router: web.UrlDispatcher) -> None:
    path = "/v1/text-to-speech/{voice_id}"
    router.add_post(path, speech(streaming=False))
    router.add_post(f"{path}/stream", speech(streaming=True))
    router.add_post(f"{path}/with-timestamps", speech(whole_with_times, streaming=False, content_type=JSON_TYPE))
    router.add_post(f"{path}/stream/with-timestamps", speech(lines_with_times, streaming=True, content_type=JSON_TYPE))
