"""The cache of the sandbox's audio."""

from voicecare.providers.elevenlabs.sandbox.account.synthesizer import AudioCache
from voicecare.providers.espeak.client import EspeakVoice


def test_the_cache_evicts_the_least_recently_used_audio() -> None:
    cache = AudioCache(limit=10)
    first, second, third = ((EspeakVoice(), text, "pcm_8000") for text in ("1", "2", "3"))
    cache.put(first, b"12345")
    cache.put(second, b"12345")
    assert cache.get(first) == b"12345"
    cache.put(third, b"1")
    assert (cache.get(first), cache.get(second), cache.get(third)) == (b"12345", None, b"1")
    cache.put(first, b"x" * 11)
    assert cache.get(first) is None
