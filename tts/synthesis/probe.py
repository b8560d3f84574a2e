"""The probe that finds out whether the provider works again. It costs one short phrase, which the cache can use."""

import asyncio
import uuid
from contextlib import suppress

from django.conf import settings

from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.models import Phrase
from tts.resilience.speech_gateway import RecorderLedger, SpeechGateway
from tts.synthesis.dependencies import SpeechDependencies
from usage.ledger.events import Attempt, Kind
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.core.database import run_in_db_thread
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.errors import AuthorizationError, BadRequest

LANGUAGE = "en"
FALLBACK_TEXT = "I see."  # if there is no phrase to cache
FREE_CALL_TIMEOUT_S = (2.0, 3.0)  # connect, read


class ProviderProbe:
    """Probes the provider. There is one for each process."""

    def __init__(self, dependencies: SpeechDependencies) -> None:
        self._dependencies = dependencies
        self._gateway = SpeechGateway(dependencies.client, RecorderLedger(dependencies.recorder))

    async def run(self) -> None:
        """Probe the provider once: a free call first, then one speech request. Raises ProviderError if it is down."""
        with suppress(AuthorizationError, BadRequest):  # a key without this permission may still be allowed to speak
            await asyncio.to_thread(_list_models)
        speech_settings, texts = await run_in_db_thread(_load_phrases)
        texts = texts or [FALLBACK_TEXT]
        phrases = self._dependencies.phrase_cache
        for text in texts:
            if await phrases.get(phrases.key(speech_settings, text)) is None:
                break
        else:
            text = texts[0]
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
        async with self._gateway.stream(
            request, attempt, first_byte_s=self._dependencies.first_byte_s, stall_s=self._dependencies.stall_s
        ) as audio:
            clip = b"".join([chunk async for chunk in audio])
        phrases.keep_in_memory(phrases.key(speech_settings, text), clip)
        self._dependencies.spawn(phrases.store(speech_settings, text, clip))


def _list_models() -> None:
    client = AccountClient(
        settings.ELEVENLABS_BASE_URL, settings.ELEVENLABS_API_KEY or "sandbox", timeout=FREE_CALL_TIMEOUT_S
    )
    try:
        client.models()
    finally:
        client.close()


def _load_phrases() -> tuple[SpeechSettings, list[str]]:
    speech_settings = SpeechSettings(
        VoiceRef.from_voice(Voice.objects.default()), settings.ELEVENLABS_MODEL_ID, LANGUAGE, 1.0, DEVICE_FORMATS[0]
    )
    common = Phrase.objects.for_language(LANGUAGE).filter(kind=Phrase.Kind.COMMON)
    return speech_settings, list(common.values_list("text", flat=True))
