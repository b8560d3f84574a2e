"""Where a segment's sound comes from: the phrase cache, the provider, the offline voice. Each books its attempt.

Accounts are kept by noting what happened; the recorder writes it behind our back (the contract, section 2, rule 9).
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from tts.circuit import Circuit
from tts.conversations import Context
from tts.delivery import Delivery
from tts.models import Utterance
from tts.pacing import LEAD_S
from tts.phrases import PhraseCache
from tts.recorder import Recorder
from tts.rendering import Rendering
from tts.retry import Rung, first_byte_limit
from tts.script import Segment, Speech
from tts.trouble import Trouble
from usage.ledger import Attempt, Kind, Outcome
from voicecare import metrics
from voicecare.audio import FORMATS
from voicecare.elevenlabs.client import SpeechClient
from voicecare.elevenlabs.errors import ProviderError, RequestRefused, Unreachable
from voicecare.elevenlabs.protocol import Receipt
from voicecare.espeak import Espeak, EspeakDied, EspeakVoice

OFFLINE_AHEAD_S = LEAD_S  # it is made no further ahead of playback: 200 listeners share one process for it
OFFLINE_WORDS_PER_MINUTE = 165
OFFLINE_NAME = "Offline voice"

# No text is so long when spoken: a stream beyond this will never end, and the patient is spared the rest of it.
LONGEST_S = 30.0
LONGEST_S_A_CHARACTER = 1.0
ENDLESS = "The speech provider sends more sound than the text can be."

Source = Utterance.Source

_SOURCES = {Rung.LIVE: Source.LIVE, Rung.RETRY: Source.LIVE, Rung.BACKUP: Source.BACKUP}


@dataclass(frozen=True, slots=True)
class Services:
    """What the road uses of the process it runs in (`tts.runtime` makes it). `own` runs work in the background.

    The limits are seconds, as the settings of the same names.
    """

    client: SpeechClient
    offline: Espeak
    circuit: Circuit
    trouble: Trouble
    phrases: PhraseCache
    recorder: Recorder
    own: Callable[[Coroutine[Any, Any, Any]], None]
    first_byte_s: float
    stall_s: float
    busy_wait_s: float
    zero_retention: bool


class Sources:
    """The three sources for one speech. What they return was forwarded already; it may be stored."""

    def __init__(self, speech: Speech, context: Context, delivery: Delivery, services: Services) -> None:
        self._speech = speech
        self._context = context
        self._delivery = delivery
        self._services = services

    async def play(self, segment: Segment) -> bytes | None:
        """The clip of this text, if the cache has it."""
        rendering = self._context.rendering
        clip = self._services.phrases.get(self._services.phrases.key(rendering, segment.text))
        if clip is not None:
            attempt = self._attempt(segment, 1, Kind.CACHE, rendering)
            await self._delivery.clip(clip, rendering.voice.name)
            self._saved(attempt)
        return clip

    def store(self, text: str, said: list[bytes]) -> None:
        """Into the cache, in the background: the whole sound of a text in the conversation's own voice."""
        key = self._services.phrases.key(self._context.rendering, text)
        self._services.own(asyncio.to_thread(self._services.phrases.put, key, b"".join(said)))

    async def ask(self, segment: Segment, rung: Rung, number: int, *, silence_s: float, keep: bool) -> list[bytes]:
        """One request to the provider; every read of its reply is one frame; all of them, if they are to be kept.

        `silence_s` is how long this segment was waited for. Raises ProviderError. Cancelling closes the response and
        books what it bills.
        """
        rendering = self._context.backup if rung is Rung.BACKUP else self._context.rendering
        request = rendering.request(
            segment.text, segment.before, segment.after, zero_retention=self._services.zero_retention
        )
        limit = first_byte_limit(rung, self._services.first_byte_s, silence_s)
        attempt = self._attempt(segment, number, Kind(rung.value), rendering)
        self._services.recorder.note(attempt)
        said: list[bytes] = []
        most = FORMATS[rendering.format].bytes_per_second * (LONGEST_S + len(segment.text) * LONGEST_S_A_CHARACTER)
        began = time.perf_counter()
        try:
            async with self._services.client.speak(
                request, first_byte_s=limit, stall_s=self._services.stall_s
            ) as reply:
                self._count(attempt, reply.receipt)
                async for chunk in reply:
                    most -= len(chunk)
                    if most < 0:
                        raise RequestRefused(ENDLESS, code="endless_audio", status=200)
                    await self._delivery.forward(chunk, _SOURCES[rung].value, rendering.voice.name)
                    if attempt.first_byte_ms is None:
                        attempt.first_byte_ms = round((time.perf_counter() - began) * 1000, 2)
                    if keep:
                        said.append(chunk)
        except ProviderError as error:
            answered = error.status is not None or isinstance(error, Unreachable)
            attempt.outcome = (Outcome.FAILED if answered else Outcome.UNKNOWN).value
            attempt.code = error.code
            self._services.trouble.met(error, rung, self._context.conversation, rendering.voice.id)
            raise
        except asyncio.CancelledError:
            attempt.outcome = (Outcome.CANCELLED if attempt.characters else Outcome.UNKNOWN).value
            raise
        finally:
            self._services.recorder.note(attempt)
        self._services.circuit.answered()
        return said

    async def improvise(self, segment: Segment, number: int) -> list[bytes]:
        """The offline voice, made on this machine. Raises EspeakDied."""
        rendering = self._context.rendering
        voice = EspeakVoice(language=rendering.language, rate=round(OFFLINE_WORDS_PER_MINUTE * rendering.speed))
        attempt = self._attempt(segment, number, Kind.OFFLINE, rendering)
        sound = self._services.offline.speak(segment.text, voice, rendering.format, ahead_s=OFFLINE_AHEAD_S)
        try:
            async with aclosing(sound):
                async for chunk in sound:
                    await self._delivery.forward(chunk, Source.OFFLINE.value, OFFLINE_NAME)
        except EspeakDied:
            attempt.outcome, attempt.code = Outcome.FAILED.value, "offline_voice_died"
            self._services.recorder.note(attempt)
            raise
        except asyncio.CancelledError:
            self._saved(attempt)
            raise
        self._saved(attempt)
        return []

    def _attempt(self, segment: Segment, number: int, kind: Kind, rendering: Rendering) -> Attempt:
        return Attempt(
            source=self._speech.key,
            segment=segment.index,
            attempt=number,
            kind=kind.value,
            asked=len(segment.text),
            conversation=self._context.conversation,
            patient=self._context.patient,
            voice=rendering.voice.id,
            model=rendering.model,
        )

    def _count(self, attempt: Attempt, receipt: Receipt) -> None:
        attempt.answered(receipt.request_id, receipt.character_cost)
        self._speech.characters += attempt.characters
        self._services.recorder.note(attempt)  # billed from here on, whatever becomes of this process
        metrics.PROVIDER_CHARACTERS.inc(attempt.characters)

    def _saved(self, attempt: Attempt) -> None:
        attempt.outcome, attempt.saved = Outcome.COMPLETED.value, attempt.asked
        self._services.recorder.note(attempt)
