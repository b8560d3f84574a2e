"""The progress that a sink records: bytes, source and latencies."""

import time
from datetime import timedelta

import pytest

from tests.tts import examples
from tts.synthesis.sink import record_audio


@pytest.mark.parametrize(
    ("sent", "source"),
    [
        (["cache"], "cache"),
        (["cache", "cache"], "cache"),
        (["cache", "live"], "live"),
        (["live", "cache"], "live"),
        (["cache", "live", "cache"], "live"),
        (["cache", "offline"], "offline"),
        (["offline", "cache"], "live"),
        (["live", "backup", "offline"], "offline"),
    ],
)
def test_the_source_is_cache_only_if_all_audio_came_from_the_cache(sent: list[str], source: str):
    speech = examples.speech()
    for part in sent:
        record_audio(speech, 100, part)
    assert (speech.progress.source, speech.progress.bytes_sent) == (source, 100 * len(sent))


def test_only_the_first_chunk_sets_the_latencies():
    now = time.monotonic()
    speech = examples.speech(received_at_monotonic=now - 0.5, started_at_monotonic=now - 0.25)
    record_audio(speech, 100, "live")
    first = speech.progress.first_chunk_ms, speech.progress.response_ms, speech.progress.spoken_at
    record_audio(speech, 100, "live")
    assert (speech.progress.first_chunk_ms, speech.progress.response_ms, speech.progress.spoken_at) == first
    assert speech.progress.first_chunk_ms >= 500
    assert 250 <= speech.progress.response_ms < speech.progress.first_chunk_ms
    assert speech.progress.spoken_at.utcoffset() == timedelta(0)
