"""The cache of the sandbox's audio."""

from voicecare.providers.elevenlabs.sandbox.account.synthesizer import AudioCache
from voicecare.providers.espeak.client import EspeakVoice


def test_the_memory_forgets_the_longest_unused() -> None:
    memory = AudioCache(limit=10)
    first, second, third = ((EspeakVoice(), text, "pcm_8000") for text in ("1", "2", "3"))
    memory.put(first, b"12345")
    memory.put(second, b"12345")
    assert memory.get(first) == b"12345"
    memory.put(third, b"1")
    assert (memory.get(first), memory.get(second), memory.get(third)) == (b"12345", None, b"1")
    memory.put(first, b"x" * 11)
    assert memory.get(first) is None
