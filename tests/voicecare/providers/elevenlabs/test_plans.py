"""The concurrency limits of the provider's plans."""

import pytest

from voicecare.providers.elevenlabs.plans import concurrency_limit


@pytest.mark.parametrize(
    ("tier", "group", "streams"),
    [
        ("free", "standard", 2),
        ("free", "turbo", 4),
        ("Creator", "turbo", 10),
        ("pro", "standard", 10),
        ("business", "turbo", 30),
        ("enterprise", "turbo", None),
        ("", "turbo", None),
    ],
)
def test_the_limit_of_each_plan(tier: str, group: str, streams: int | None) -> None:
    assert concurrency_limit(tier, group) == streams
