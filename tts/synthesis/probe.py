"""Whether the provider is back: a free call, then one short phrase that the cache wants anyway."""

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
FALLBACK_TEXT = "I see."  # where there is no phrase to keep
FREE_CALL_TIMEOUT_S = (2.0, 3.0)  # connect, read


class ProviderProbe:
    """Made once; `run` is one look. Raises ProviderError while the provider is down."""

    def __init__(self, dependencies: SpeechDependencies) -> None:
        self._dependencies = dependencies
        self._gateway = SpeechGateway(dependencies.client, RecorderLedger(dependencies.recorder))

    async def run(self) -> None:
        with suppress(AuthorizationError, BadRequest):  # a key may lack the permission and still speak
            await asyncio.to_thread(_list_models)
        rendering, texts = await run_in_db_thread(_load_phrases)
        await self._speak(rendering, await self._choose_text(rendering, texts or [FALLBACK_TEXT]))

    async def _choose_text(self, rendering: SpeechSettings, texts: list[str]) -> str:
        phrases = self._dependencies.phrase_cache
        for text in texts:
            if await phrases.get(phrases.key(rendering, text)) is None:
                return text
        return texts[0]

    async def _speak(self, rendering: SpeechSettings, text: str) -> None:
        attempt = Attempt(
            source_id=uuid.uuid4(),
            segment=0,
            attempt=1,
            kind=Kind.PROBE.value,
            requested_characters=len(text),
            voice_id=rendering.voice.id,
            model=rendering.model,
        )
        request = rendering.build_request(text, None, None, zero_retention=self._dependencies.zero_retention)
        async with self._gateway.stream(
            request, attempt, first_byte_s=self._dependencies.first_byte_s, stall_s=self._dependencies.stall_s
        ) as audio:
            said = b"".join([chunk async for chunk in audio])
        phrases = self._dependencies.phrase_cache
        phrases.keep_in_memory(phrases.key(rendering, text), said)
        self._dependencies.spawn(phrases.store(rendering, text, said))


def _list_models() -> None:
    client = AccountClient(
        settings.ELEVENLABS_BASE_URL, settings.ELEVENLABS_API_KEY or "sandbox", timeout=FREE_CALL_TIMEOUT_S
    )
    try:
        client.models()
    finally:
        client.close()


def _load_phrases() -> tuple[SpeechSettings, list[str]]:
    rendering = SpeechSettings(
        VoiceRef.from_voice(Voice.objects.default()), settings.ELEVENLABS_MODEL_ID, LANGUAGE, 1.0, DEVICE_FORMATS[0]
    )
    common = Phrase.objects.for_language(LANGUAGE).filter(kind=Phrase.Kind.COMMON)
    return rendering, list(common.values_list("text", flat=True))
