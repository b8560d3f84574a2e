"""Audio is sent in the right frames and order, counted, and paced."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.tts.devices.wire import line
from tests.tts.examples import speech
from tts.devices.output import MAX_BUFFERED_BYTES, SpeechOutput
from tts.devices.transport import DeviceTransport
from tts.speech import Speech
from voicecare.audio.encoders import Encoder
from voicecare.audio.formats import FORMATS
from voicecare.audio.framing import FramePadder

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
def said() -> Speech:
    return speech("s1", started_at_monotonic=time.monotonic())


def deliver(device: Device, said: Speech, format_name: str = "pcm_16000") -> SpeechOutput:
    return SpeechOutput(DeviceTransport(device.receive), said, format_name)


async def still_waits(task: asyncio.Task[None]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


# Announcements

STARTED = {"type": "speech.started", "id": "s1", "format": "pcm_16000"}
SWITCHED = {"type": "speech.switched", "id": "s1"}


def heard_as(kind: dict, source: str, voice: str) -> dict:
    return {**kind, "source": source, "voice": voice}


@pytest.mark.parametrize(
    ("said_by", "frames", "source"),
    [
        ([("live", "Ann")], [heard_as(STARTED, "live", "Ann")], "live"),
        ([("live", "Ann"), ("live", "Ann")], [heard_as(STARTED, "live", "Ann")], "live"),
        ([("cache", "Ann")], [heard_as(STARTED, "cache", "Ann")], "cache"),
        ([("cache", "Ann"), ("cache", "Ann")], [heard_as(STARTED, "cache", "Ann")], "cache"),
        ([("cache", "Ann"), ("live", "Ann")], [heard_as(STARTED, "cache", "Ann")], "live"),
        ([("live", "Ann"), ("cache", "Ann")], [heard_as(STARTED, "live", "Ann")], "live"),
        ([("backup", "Default")], [heard_as(STARTED, "backup", "Default"), NOTICE], "backup"),
        ([("offline", "Robot")], [heard_as(STARTED, "offline", "Robot"), NOTICE], "offline"),
        (
            [("live", "Ann"), ("backup", "Default")],
            [heard_as(STARTED, "live", "Ann"), heard_as(SWITCHED, "backup", "Default"), NOTICE],
            "backup",
        ),
        (
            [("live", "Default"), ("backup", "Default")],
            [heard_as(STARTED, "live", "Default"), heard_as(SWITCHED, "backup", "Default"), NOTICE],
            "backup",
        ),
        (
            [("cache", "Ann"), ("offline", "Robot")],
            [heard_as(STARTED, "cache", "Ann"), heard_as(SWITCHED, "offline", "Robot"), NOTICE],
            "offline",
        ),
        (
            [("live", "Ann"), ("backup", "Default"), ("backup", "Default"), ("offline", "Robot")],
            [
                heard_as(STARTED, "live", "Ann"),
                heard_as(SWITCHED, "backup", "Default"),
                NOTICE,
                heard_as(SWITCHED, "offline", "Robot"),
            ],
            "offline",
        ),
    ],
)
async def test_the_source_is_announced_and_a_fallback_is_notified_once(
    device: Device, said: Speech, said_by: list[tuple[str, str]], frames: list[dict], source: str
):
    delivery = deliver(device, said)
    for name, voice in said_by:
        await delivery.send_audio(b"\0\0", name, voice)
    assert device.frames == frames
    assert said.progress.source == source


async def test_each_announcement_precedes_its_audio(device: Device, said: Speech):
    delivery = deliver(device, said)
    for name, voice in (("live", "Ann"), ("backup", "Default"), ("offline", "Robot")):
        await delivery.send_audio(b"\0\0", name, voice)
        await delivery.send_audio(b"\0\0", name, voice)
    assert device.kinds == [
        *("speech.started", "audio", "audio"),
        *("speech.switched", "notice", "audio", "audio"),
        *("speech.switched", "audio", "audio"),
    ]


async def test_a_voice_without_audio_is_not_announced(device: Device, said: Speech):
    delivery = deliver(device, said)
    await delivery.wait_for_capacity()
    await delivery.pad_partial_frame()
    assert (device.received, said.progress.source, said.progress.first_chunk_ms, said.progress.spoken_at) == (
        [],
        "",
        None,
        None,
    )


async def test_every_chunk_is_one_unchanged_frame(device: Device, said: Speech):
    reads = [b"\1\2", b"\3", b"\4" * 5000]
    delivery = deliver(device, said)
    for read in reads:
        await delivery.send_audio(read, "live", "Ann")
    assert device.received[1:] == reads
    assert said.progress.bytes_sent == 5003


async def test_voice_names_are_sent_unchanged(device: Device, said: Speech):
    await deliver(device, said).send_audio(b"\0\0", "live", "Åsa 🙂")
    assert device.frames[0]["voice"] == "Åsa 🙂"


# Measurements


async def test_only_the_first_frame_is_measured_from_the_arrival_of_the_text(device: Device):
    said = speech("s1", received_at_monotonic=time.monotonic() - 0.5, started_at_monotonic=time.monotonic())
    delivery = deliver(device, said)
    await delivery.send_audio(b"\0\0", "live", "Ann")
    first, spoken_at = said.progress.first_chunk_ms, said.progress.spoken_at
    await delivery.send_audio(b"\0\0", "offline", "Robot")
    assert first >= 500
    assert (said.progress.first_chunk_ms, said.progress.spoken_at) == (first, spoken_at)
    assert spoken_at.utcoffset() == timedelta(0)


# Cuts


@pytest.mark.parametrize(
    ("format_name", "cut", "zeros"),
    [("pcm_16000", 3, 1), ("pcm_24000", 4, 0), ("pcm_22050", 1, 1), ("ulaw_8000", 3, 0)],
)
async def test_a_cut_sample_is_padded_with_zeros_that_count(
    device: Device, said: Speech, format_name: str, cut: int, zeros: int
):
    delivery = deliver(device, said, format_name)
    await delivery.send_audio(b"\1" * cut, "live", "Ann")
    await delivery.pad_partial_frame()
    assert device.audio == b"\1" * cut + bytes(zeros)
    assert said.progress.bytes_sent == cut + zeros


@pytest.mark.parametrize("format_name", ["mp3_44100_128", "mp3_22050_32"])
@pytest.mark.parametrize("cut", [2, 3, 100, 1000, 1500])
async def test_a_cut_frame_is_padded_to_a_whole_one(device: Device, said: Speech, format_name: str, cut: int):
    encoder = Encoder(FORMATS[format_name], FORMATS[format_name].sample_rate)
    sound = encoder.feed(bytes(2 * FORMATS[format_name].sample_rate)) + encoder.finish()
    delivery, rest = deliver(device, said, format_name), FramePadder(FORMATS[format_name])
    await delivery.send_audio(sound[:cut], "live", "Ann")
    await delivery.pad_partial_frame()
    rest.feed(device.audio)
    assert device.audio.startswith(sound[:cut])
    assert rest.padding() == b""
    assert said.progress.bytes_sent == len(device.audio) > cut


async def test_a_cut_is_padded_once_and_before_the_switch(device: Device, said: Speech):
    delivery = deliver(device, said)
    await delivery.send_audio(b"\1", "live", "Ann")
    await delivery.pad_partial_frame()
    await delivery.pad_partial_frame()
    await delivery.send_audio(b"\2\2", "backup", "Default")
    assert device.kinds == ["speech.started", "audio", "audio", "speech.switched", "notice", "audio"]
    assert device.audio == b"\1\0\2\2"


# Waiting for a slot


async def test_a_speech_that_waits_for_a_slot_is_reported_once(device: Device, said: Speech):
    delivery = deliver(device, said)
    before = datetime.now(UTC)
    with capture_logs() as logs:
        await delivery.notify_queued("busy", 4.5)
        await delivery.notify_queued("busy", 4.0)
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("speech.queued", "busy")]
    assert said.progress.queue_reason == "busy"
    (frame,) = device.frames
    expires_at = datetime.fromisoformat(frame.pop("expires_at"))
    assert frame == {"type": "speech.queued", "id": "s1", "reason": "busy"}
    assert timedelta(seconds=4.4) < expires_at - before < timedelta(seconds=10)
    assert expires_at.utcoffset() == timedelta(0)


# Pace


async def spoken(delivery: SpeechOutput, seconds: float) -> None:
    """Send one segment as the pipeline does."""
    await delivery.wait_for_capacity()
    await delivery.send_audio(bytes(int(seconds * PCM_SECOND) // 2 * 2), "live", "Ann")


async def test_the_third_segment_waits_until_the_second_plays(device: Device, said: Speech):
    delivery = deliver(device, said)
    await spoken(delivery, 0.1)
    await spoken(delivery, 5)
    third = asyncio.create_task(delivery.wait_for_capacity())
    assert await still_waits(third)
    await asyncio.wait_for(third, 3)


async def test_reported_playback_makes_room_for_the_next_segment(device: Device, said: Speech):
    delivery = deliver(device, said)
    await spoken(delivery, 60)
    room = asyncio.create_task(delivery.wait_for_capacity())
    assert await still_waits(room)
    delivery.report_playback(59_000)
    await asyncio.wait_for(room, 3)


async def test_waiting_for_capacity_can_be_cancelled(device: Device, said: Speech):
    delivery = deliver(device, said)
    await spoken(delivery, 60)
    room = asyncio.create_task(delivery.wait_for_capacity())
    assert await still_waits(room)
    room.cancel()
    with pytest.raises(asyncio.CancelledError):
        await room


# A device that does not read


async def test_sending_waits_for_a_device_that_does_not_read(said: Speech):
    with line() as wire:
        socket = wire.socket()
        forwarding = asyncio.create_task(
            SpeechOutput(socket, said, "pcm_16000").send_audio(bytes(1 << 20), "live", "Ann")
        )
        assert await still_waits(forwarding)
        while socket.buffered_bytes() > MAX_BUFFERED_BYTES:
            wire.read()
            wire.write_on()
        await asyncio.wait_for(forwarding, 3)


async def test_flush_returns_when_all_audio_has_left(said: Speech):
    with line() as wire:
        socket = wire.socket()
        await socket.send(bytes(1 << 20))
        settled = asyncio.create_task(SpeechOutput(socket, said, "pcm_16000").flush())
        assert await still_waits(settled)
        while socket.buffered_bytes():
            wire.read()
            wire.write_on()
        await asyncio.wait_for(settled, 3)
