"""Makes real speech in the requested voice with espeak-ng, and caches recent audio."""

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing

from voicecare.providers.espeak.client import EspeakVoice, OfflineSynthesizer

Key = tuple[EspeakVoice, str, str]

CACHE_BYTES = 32 * 1024 * 1024
CACHED_CHUNK_BYTES = 4096


class AudioCache:
    """A cache of complete speeches with a limited number of bytes. The least recently used speech is removed first."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._audio: OrderedDict[Key, bytes] = OrderedDict()

    def get(self, key: Key) -> bytes | None:
        if key in self._audio:
            self._audio.move_to_end(key)
        return self._audio.get(key)

    def put(self, key: Key, audio: bytes) -> None:
        self._size += len(audio) - len(self._audio.pop(key, b""))
        self._audio[key] = audio
        while self._size > self._limit:
            self._size -= len(self._audio.popitem(last=False)[1])


class Synthesizer:
    """Synthesizes speech with the espeak worker process, or returns it from the cache."""

    def __init__(self, espeak: OfflineSynthesizer) -> None:
        self._offline_synthesizer = espeak
        self._cache = AudioCache()

    async def speak(self, text: str, voice: EspeakVoice, format_name: str) -> AsyncGenerator[bytes, None]:
        """Yields audio in the named format while it is made.

        Closing the generator early stops the synthesis, and nothing is cached. Raises SynthesizerUnavailable if the
        espeak worker ends.
        """
        key = (voice, text, format_name)
        known = self._cache.get(key)
        if known is not None:
            for start in range(0, len(known), CACHED_CHUNK_BYTES):
                yield known[start : start + CACHED_CHUNK_BYTES]
            return
        made: list[bytes] = []
        async with aclosing(self._offline_synthesizer.speak(text, voice, format_name, as_written=True)) as chunks:
            async for chunk in chunks:
                made.append(chunk)
                yield chunk
        self._cache.put(key, b"".join(made))
