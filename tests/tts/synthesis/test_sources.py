"""The sources of a segment's audio, with a sink that keeps all audio."""

from types import SimpleNamespace
from typing import Any, cast

from tests.tts import examples
from tests.tts.synthesis.recording import RecordingSink
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.sources import CLIP_CHUNK_BYTES, AudioSources
from tts.text.stream import Segment


class OneClip:
    """A phrase cache with the same clip for every key."""

    def __init__(self, clip: bytes) -> None:
        self.clip = clip
        self.hits: list[str] = []

    def key(self, rendering: object, text: str) -> str:
        return text

    def get_cached(self, key: str) -> bytes:
        return self.clip

    def record_hit(self, key: str) -> None:
        self.hits.append(key)


async def test_a_clip_is_sent_in_chunks_and_booked_as_saved():
    phrases, recorded = OneClip(bytes(CLIP_CHUNK_BYTES) + b"rest"), cast(list[Any], [])
    speech = examples.speech(text="Good morning.")
    sink = RecordingSink(speech)
    dependencies = cast(
        SpeechDependencies, SimpleNamespace(phrase_cache=phrases, recorder=SimpleNamespace(record=recorded.append))
    )
    assert await AudioSources(speech, examples.CONTEXT, sink, dependencies).play_cached(
        Segment(0, "Good morning.", "Good morning.", "Good morning.", None, None)
    )
    assert [chunk for _, _, chunk in sink.sent] == [bytes(CLIP_CHUNK_BYTES), b"rest"]
    assert (speech.progress.source, speech.progress.bytes_sent) == ("cache", len(phrases.clip))
    assert phrases.hits == ["Good morning."]
    assert [(attempt.kind, attempt.saved_characters, attempt.characters) for attempt in recorded] == [("cache", 13, 0)]
