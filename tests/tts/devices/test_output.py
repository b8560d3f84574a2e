"""Audio is sent in the right frames and order, counted, and paced."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.tts.devices.wire import Wire, open_wire
from tests.tts.examples import speech
from tests.waiting import eventually
from tts.devices.output import MAX_BUFFERED_BYTES, SpeechOutput
from tts.devices.playback import Playback
from tts.devices.transport import DeviceTransport
from tts.speech import Speech

Step = Callable[[SpeechOutput], Awaitable[None]]

PCM_SECOND = 32_000  # bytes of one second of pcm_16000
NOTICE = {"type": "notice", "code": "backup_voice", "message": "Temporary voice issue, using backup voice"}


@dataclass
class Device:
    """Keeps all that is sent to it: JSON frames as dicts, audio as bytes."""

    received: list[Any] = field(default_factory=list)

    async def receive(self, message: dict[str, Any]) -> None:
        self.received.append(json.loads(message["text"]) if "text" in message else message["bytes"])

    @property
    def frames(self) -> list[dict]:
        return [item for item in self.received if isinstance(item, dict)]

    @property
    def audio(self) -> bytes:
        return b"".join(item for item in self.received if isinstance(item, bytes))

    @property
    def kinds(self) -> list[str]:
        return [item["type"] if isinstance(item, dict) else "audio" for item in self.received]


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def utterance() -> Speech:
    return speech("s1", started_at_monotonic=time.monotonic())


def new_output(
    transport: DeviceTransport, utterance: Speech, format_name: str = "pcm_16000", buffer_s: float | None = None
) -> SpeechOutput:
    playback = Playback(lambda utterance_id, ms: None)
    playback.buffer_s = buffer_s
    playback.begin(utterance.id, utterance.utterance_id)
    return SpeechOutput(transport, utterance, format_name, playback)


def output_for(device: Device, utterance: Speech, format_name: str = "pcm_16000") -> SpeechOutput:
    return new_output(DeviceTransport(device.receive), utterance, format_name)


async def is_still_waiting(task: asyncio.Task[None]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


# Announcements

STARTED = {"type": "speech.started", "id": "s1", "format": "pcm_16000"}
SWITCHED = {"type": "speech.switched", "id": "s1"}


def announced(kind: dict, source: str, voice: str) -> dict:
    return {**kind, "source": source, "voice": voice}


@pytest.mark.parametrize(
    ("said_by", "frames", "source"),
    [
        ([("live", "Ann")], [announced(STARTED, "live", "Ann")], "live"),
        ([("live", "Ann"), ("live", "Ann")], [announced(STARTED, "live", "Ann")], "live"),
        ([("cache", "Ann")], [announced(STARTED, "cache", "Ann")], "cache"),
        ([("cache", "Ann"), ("cache", "Ann")], [announced(STARTED, "cache", "Ann")], "cache"),
        ([("cache", "Ann"), ("live", "Ann")], [announced(STARTED, "cache", "Ann")], "live"),
        ([("live", "Ann"), ("cache", "Ann")], [announced(STARTED, "live", "Ann")], "live"),
        ([("backup", "Default")], [announced(STARTED, "backup", "Default"), NOTICE], "backup"),
        ([("offline", "Robot")], [announced(STARTED, "offline", "Robot"), NOTICE], "offline"),
        (
            [("live", "Ann"), ("backup", "Default")],
            [announced(STARTED, "live", "Ann"), announced(SWITCHED, "backup", "Default"), NOTICE],
            "backup",
        ),
        (
            [("live", "Default"), ("backup", "Default")],
            [announced(STARTED, "live", "Default"), announced(SWITCHED, "backup", "Default"), NOTICE],
            "backup",
        ),
        (
            [("cache", "Ann"), ("offline", "Robot")],
            [announced(STARTED, "cache", "Ann"), announced(SWITCHED, "offline", "Robot"), NOTICE],
            "offline",
        ),
        (
            [("live", "Ann"), ("backup", "Default"), ("backup", "Default"), ("offline", "Robot")],
            [
                announced(STARTED, "live", "Ann"),
                announced(SWITCHED, "backup", "Default"),
                NOTICE,
                announced(SWITCHED, "offline", "Robot"),
            ],
            "offline",
        ),
    ],
)
async def test_the_source_is_announced_and_a_fallback_is_notified_once(
    device: Device, utterance: Speech, said_by: list[tuple[str, str]], frames: list[dict], source: str
):
    output = output_for(device, utterance)
    for name, voice in said_by:
        await output.send_audio(b"\0\0", name, voice)
    assert device.frames == frames
    assert utterance.progress.source == source


async def test_each_announcement_precedes_its_audio(device: Device, utterance: Speech):
    output = output_for(device, utterance)
    for name, voice in (("live", "Ann"), ("backup", "Default"), ("offline", "Robot")):
        await output.send_audio(b"\0\0", name, voice)
        await output.send_audio(b"\0\0", name, voice)
    assert device.kinds == [
        *("speech.started", "audio", "audio"),
        *("speech.switched", "notice", "audio", "audio"),
        *("speech.switched", "audio", "audio"),
    ]


async def test_a_voice_without_audio_is_not_announced(device: Device, utterance: Speech):
    output = output_for(device, utterance)
    await output.wait_for_capacity()
    assert (
        device.received,
        utterance.progress.source,
        utterance.progress.first_chunk_ms,
        utterance.progress.spoken_at,
    ) == (
        [],
        "",
        None,
        None,
    )


async def test_every_chunk_is_one_unchanged_frame(device: Device, utterance: Speech):
    reads = [b"\1\2", b"\3", b"\4" * 5000]
    output = output_for(device, utterance)
    for read in reads:
        await output.send_audio(read, "live", "Ann")
    assert device.received[1:] == reads
    assert utterance.progress.bytes_sent == 5003


async def test_voice_names_are_sent_unchanged(device: Device, utterance: Speech):
    await output_for(device, utterance).send_audio(b"\0\0", "live", "Åsa 🙂")
    assert device.frames[0]["voice"] == "Åsa 🙂"


# Measurements


async def test_only_the_first_frame_is_measured_from_the_arrival_of_the_text(device: Device):
    utterance = speech("s1", received_at_monotonic=time.monotonic() - 0.5, started_at_monotonic=time.monotonic())
    output = output_for(device, utterance)
    await output.send_audio(b"\0\0", "live", "Ann")
    first, spoken_at = utterance.progress.first_chunk_ms, utterance.progress.spoken_at
    await output.send_audio(b"\0\0", "offline", "Robot")
    assert first >= 500
    assert (utterance.progress.first_chunk_ms, utterance.progress.spoken_at) == (first, spoken_at)
    assert spoken_at.utcoffset() == timedelta(0)


# Waiting for a slot


async def test_a_speech_that_waits_for_a_slot_is_reported_once(device: Device, utterance: Speech):
    output = output_for(device, utterance)
    before = datetime.now(UTC)
    with capture_logs() as logs:
        await output.notify_queued("busy", 4.5)
        await output.notify_queued("busy", 4.0)
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("speech.queued", "busy")]
    assert utterance.progress.queue_reason == "busy"
    (frame,) = device.frames
    expires_at = datetime.fromisoformat(frame.pop("expires_at"))
    assert frame == {"type": "speech.queued", "id": "s1", "reason": "busy"}
    assert timedelta(seconds=4.4) < expires_at - before < timedelta(seconds=10)
    assert expires_at.utcoffset() == timedelta(0)


# Pace


async def send_segment(output: SpeechOutput, seconds: float) -> None:
    """Send one segment as the pipeline does."""
    await output.wait_for_capacity()
    await output.send_audio(bytes(int(seconds * PCM_SECOND) // 2 * 2), "live", "Ann")


async def test_the_third_segment_waits_until_the_second_plays(device: Device, utterance: Speech):
    output = output_for(device, utterance)
    await send_segment(output, 0.1)
    await send_segment(output, 5)
    third = asyncio.create_task(output.wait_for_capacity())
    assert await is_still_waiting(third)
    await asyncio.wait_for(third, 3)


async def test_reported_playback_makes_room_for_the_next_segment(device: Device, utterance: Speech):
    output = output_for(device, utterance)
    await send_segment(output, 60)
    room = asyncio.create_task(output.wait_for_capacity())
    assert await is_still_waiting(room)
    output.report_playback(59_000)
    await asyncio.wait_for(room, 3)


async def test_waiting_for_capacity_can_be_cancelled(device: Device, utterance: Speech):
    output = output_for(device, utterance)
    await send_segment(output, 60)
    room = asyncio.create_task(output.wait_for_capacity())
    assert await is_still_waiting(room)
    room.cancel()
    with pytest.raises(asyncio.CancelledError):
        await room


# A device with a small buffer


async def test_a_small_buffer_gets_its_audio_in_parts_that_it_has_room_for(device: Device, utterance: Speech):
    output = new_output(DeviceTransport(device.receive), utterance, buffer_s=0.5)
    sound = bytes(range(256)) * 125  # one second
    await output.send_audio(sound, "live", "Ann")
    assert len(device.audio) == 0.4 * PCM_SECOND
    assert output.unsent_bytes() == 0.6 * PCM_SECOND
    await asyncio.wait_for(output.flush(), 5)
    assert device.audio == sound
    assert len(device.received) > 3
    assert utterance.progress.bytes_sent == PCM_SECOND


async def test_a_small_buffer_is_filled_while_the_provider_is_silent(device: Device, utterance: Speech):
    output = new_output(DeviceTransport(device.receive), utterance, buffer_s=0.5)
    await output.send_audio(bytes(PCM_SECOND), "live", "Ann")
    await eventually(lambda: len(device.audio), wanted=lambda size: size == PCM_SECOND)


async def test_the_next_segment_is_requested_while_the_last_one_waits_for_a_small_buffer(
    device: Device, utterance: Speech
):
    output = new_output(DeviceTransport(device.receive), utterance, buffer_s=0.5)
    await send_segment(output, 2)
    await asyncio.wait_for(output.wait_for_capacity(), 1)
    assert output.unsent_bytes() > PCM_SECOND
    await output.close()


async def test_nothing_is_sent_after_the_end(device: Device, utterance: Speech):
    output = new_output(DeviceTransport(device.receive), utterance, buffer_s=0.5)
    await output.send_audio(bytes(PCM_SECOND), "live", "Ann")
    await output.close()
    received = len(device.audio)
    await asyncio.sleep(0.3)
    assert (len(device.audio), output.unsent_bytes()) == (received, 0)


# A device that does not read


HALF_MEGABYTE = 1 << 19
MUCH = 2 * MAX_BUFFERED_BYTES + HALF_MEGABYTE  # more than the system takes from a device that does not read


async def send_unread(output: SpeechOutput) -> None:
    """Send more than a device that does not read may have in front of it, and then half a megabyte."""
    await output.send_audio(bytes(MUCH), "live", "Ann")
    for _ in range(16):
        await asyncio.wait_for(output.send_audio(bytes(HALF_MEGABYTE // 16), "live", "Ann"), 3)


async def read_all(wire: Wire, transport: DeviceTransport, done: asyncio.Task[None]) -> int:
    """Read until the task is done and nothing is buffered. Return the number of bytes."""
    received = 0
    while not done.done() or transport.buffered_bytes():
        wire.run_writers()
        received += len(wire.read())
        await asyncio.sleep(0.001)
    return received + len(wire.read())


async def test_audio_for_a_device_that_does_not_read_is_kept_and_sent_later(utterance: Speech):
    with open_wire() as wire:
        transport = wire.device_transport()
        output = new_output(transport, utterance)
        await send_unread(output)
        assert output.unsent_bytes() == HALF_MEGABYTE
        assert utterance.progress.bytes_sent == MUCH
        flushing = asyncio.create_task(output.flush())
        received = await read_all(wire, transport, flushing)
        assert received > utterance.progress.bytes_sent == MUCH + HALF_MEGABYTE
        assert output.unsent_bytes() == 0


@pytest.mark.parametrize("step", [SpeechOutput.wait_for_capacity, SpeechOutput.wait_for_listener])
async def test_nothing_else_is_requested_while_audio_is_kept(utterance: Speech, step: Step):
    with open_wire() as wire:
        transport = wire.device_transport()
        output = new_output(transport, utterance)
        await send_unread(output)
        output.report_playback(3_600_000)
        waiting = asyncio.create_task(step(output))
        assert await is_still_waiting(waiting)
        await read_all(wire, transport, waiting)
        assert output.unsent_bytes() == 0


async def test_the_first_chunk_is_sent_even_if_an_earlier_speech_is_unread(utterance: Speech):
    with open_wire() as wire:
        transport = wire.device_transport()
        await transport.send(bytes(MUCH))
        output = new_output(transport, utterance)
        await asyncio.wait_for(output.wait_for_capacity(), 3)
        await output.send_audio(b"\0\0", "live", "Ann")
        assert (utterance.progress.bytes_sent, output.unsent_bytes()) == (2, 0)


async def test_flush_returns_when_all_audio_has_left(utterance: Speech):
    with open_wire() as wire:
        transport = wire.device_transport()
        await transport.send(bytes(1 << 20))
        flushing = asyncio.create_task(new_output(transport, utterance).flush())
        assert await is_still_waiting(flushing)
        while transport.buffered_bytes():
            wire.read()
            wire.run_writers()
        await asyncio.wait_for(flushing, 3)
