"""The concurrency limits of the provider's plans."""

import pytest

from voicecare.providers.elevenlabs.plans import concurrency_limit


@pytest.mark.parametrize(
    ("tier", "model", "streams"),
    [
        ("free", "eleven_multilingual_v2", 2),
        ("free", "eleven_flash_v2_5", 4),
        ("Creator", "eleven_turbo_v2_5", 10),
        ("pro", "eleven_v3", 10),
        ("business", "eleven_flash_v2", 30),
        ("enterprise", "eleven_flash_v2_5", None),
        ("", "eleven_flash_v2_5", None),
    ],
)
def test_the_limit_of_each_plan(tier: str, model: str, streams: int | None) -> None:
    assert concurrency_limit(tier, model) == streams
