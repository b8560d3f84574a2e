"""The probe that finds out whether the provider works.

It costs one short phrase, whose audio goes into the phrase cache.
"""

import asyncio
import random
import uuid
from contextlib import suppress
from dataclasses import replace

from django.conf import settings

from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.resilience.speech_gateway import RecorderLedger, SpeechGateway
from tts.synthesis.dependencies import SpeechDependencies
from tts.text.segmenter import normalise
from usage.ledger.events import Attempt, Kind
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.core.database import run_in_db_thread
from voicecare.patients.models import Voice
from voicecare.providers.errors import AuthorizationError, BadRequest, RateLimited, Stalled

LANGUAGE = "en"
TEXTS = ("I see.", "Tell me more.", "That's wonderful!")
"""Plain words that the provider can speak. A phrase of the database may be a text that it cannot speak, and would keep
the circuit open. There are several, and each probe chooses one by chance, so that no single text decides."""

FREE_CALL_TIMEOUT_S = 3.0
QUICK_CALL_TIMEOUT_S = 1.0  # a call that is made after a segment's first timeout ends before its fallback chain does
SPEECH_TIMEOUT_S = 5.0  # from the request to the end of its response


class ProviderProbe:
    """Probes the provider, each time on a new connection. Each process has one."""

    def __init__(self, dependencies: SpeechDependencies) -> None:
        self._dependencies = dependencies
        self._gateway = SpeechGateway(dependencies.client, RecorderLedger(dependencies.recorder))

    async def run(self) -> None:
        """Probe the provider once: a free call first, then one speech request.

        Raises ProviderError if the provider is down.
        """
        await self.check(FREE_CALL_TIMEOUT_S)
        await self.speak()

    async def check(self, timeout_s: float = QUICK_CALL_TIMEOUT_S) -> None:
        """Make a free call. Raises ProviderError if the provider does not respond or reports an internal error."""
        # A key without the permission for this call may still be allowed to speak.
        with suppress(AuthorizationError, BadRequest, RateLimited):
            await self._dependencies.client.check(timeout_s)

    async def speak(self, *, avoid: str = "") -> None:
        """Request speech of a text other than `avoid` in the default voice. Raises ProviderError.

        SPEECH_TIMEOUT_S limits the request only, because a slow database says nothing about the provider. Does nothing
        if the provider has no usable voice.
        """
        speech_settings = await run_in_db_thread(_default_settings)
        if speech_settings.voice.is_offline:
            return
        text = random.choice([text for text in TEXTS if text != normalise(avoid)])  # noqa: S311 - no secret
        attempt = Attempt(
            source_id=uuid.uuid4(),
            segment=0,
            attempt=1,
            kind=Kind.PROBE.value,
            requested_characters=len(text),
            voice_id=speech_settings.voice.id,
            model=speech_settings.model,
        )
        request = speech_settings.build_request(text, None, None, zero_retention=self._dependencies.zero_retention)
        stream = self._gateway.stream(
            replace(request, new_connection=True),
            attempt,
            first_byte_s=self._dependencies.first_byte_s,
            stall_s=self._dependencies.stall_s,
        )
        try:
            async with asyncio.timeout(SPEECH_TIMEOUT_S), stream as audio:
                clip = b"".join([chunk async for chunk in audio])
        except TimeoutError as error:
            raise Stalled from error
        phrases = self._dependencies.phrase_cache
        phrases.keep_in_memory(phrases.key(speech_settings, text), clip)
        self._dependencies.spawn(phrases.store(speech_settings, text, clip))


def _default_settings() -> SpeechSettings:
    voice = VoiceRef.from_voice(Voice.objects.default(LANGUAGE))
    return SpeechSettings(voice, settings.ELEVENLABS_MODEL_ID, LANGUAGE, 1.0, DEVICE_FORMATS[0])
