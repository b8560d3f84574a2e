"""The sources of a segment's sound, each into a sink that keeps what it is given."""

from types import SimpleNamespace
from typing import Any, cast

from tests.tts import examples
from tests.tts.synthesis.recording import RecordingSink
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.sources import CLIP_CHUNK_BYTES, AudioSources
from tts.text.stream import Segment


class OneClip:
    """A phrase cache that has this clip for every key."""

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
    phrases, noted = OneClip(bytes(CLIP_CHUNK_BYTES) + b"rest"), cast(list[Any], [])
    speech = examples.speech(text="Good morning.")
    sink = RecordingSink(speech)
    services = cast(
        SpeechDependencies, SimpleNamespace(phrase_cache=phrases, recorder=SimpleNamespace(record=noted.append))
    )
    assert await AudioSources(speech, examples.CONTEXT, sink, services).play_cached(
        Segment(0, "Good morning.", None, None)
    )
    assert [chunk for _, _, chunk in sink.sent] == [bytes(CLIP_CHUNK_BYTES), b"rest"]
    assert (speech.progress.source, speech.progress.bytes_sent) == ("cache", len(phrases.clip))
    assert phrases.hits == ["Good morning."]
    assert [(attempt.kind, attempt.saved_characters, attempt.characters) for attempt in noted] == [("cache", 13, 0)]
