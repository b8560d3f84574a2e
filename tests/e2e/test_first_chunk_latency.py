"""Time to first audio: p95 below 500 ms with 20 concurrent devices, through the sandbox with its default settings."""

import asyncio
from collections.abc import Callable

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess

DEVICES = 20
SPEECHES = 3
LIMIT_S = 0.5


async def talk(server: ServerProcess, member: Member, number: int) -> list[float]:
    """Return the seconds from each text to its first audio at the device."""
    waited = []
    async with Device(server.ws, member.token, timeout_s=30) as device:
        await device.start(greeting=False)
        for turn in range(SPEECHES):
            spoken = await device.speak(
                f"This is patient {number}, turn {turn}: how did you sleep last night, my dear?"
            )
            assert spoken.terminal["type"] == "speech.finished"
            assert spoken.frames_of("speech.started")[0]["source"] == "live"
            assert spoken.first_audio_s is not None
            waited.append(spoken.first_audio_s)
        await device.end()
    return waited


def percentile(values: list[float], share: float) -> float:
    """Return the nearest-rank percentile: at least this share of the values is not greater."""
    ranked = sorted(values)
    return ranked[max(0, -(-int(len(ranked) * share * 100) // 100) - 1)]


@pytest.fixture
def ward(member: Callable[..., Member]) -> list[Member]:
    return [member(f"Patient {number}") for number in range(DEVICES)]


@pytest.mark.timed
async def test_the_first_audio_comes_within_half_a_second(
    server: ServerProcess, sandbox: SandboxProcess, ward: list[Member]
) -> None:
    waited = await asyncio.gather(*(talk(server, member, number) for number, member in enumerate(ward)))
    times = [seconds for one in waited for seconds in one]
    p50, p95 = percentile(times, 0.5), percentile(times, 0.95)
    print(f"\nfirst chunk, {DEVICES} concurrent devices: p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms")
    assert sandbox.settings()["first_byte_ms"] == 120
    assert len(times) == DEVICES * SPEECHES
    assert p95 < LIMIT_S
