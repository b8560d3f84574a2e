"""Devices with a small buffer (`buffer_ms`), what they have played, and acknowledgements that come too early."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.e2e.test_deliveries import submit, wait_until_state
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Utterance
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS
from voicecare.audio.ogg import PageReader, SoundLength
from voicecare.patients.models import Device as DeviceRow
from voicecare_client import Frame

BUFFER_MS = 2400
START_S = 0.15  # of audio is buffered before playback starts
SENTENCE = "She told him that the garden had been full of roses when she was a child, and that her mother had "
LONG = f"{SENTENCE * 2}planted every single one herself. "
"""Nearly 300 characters, the longest segment that there is: 15 s and more."""
TEXT = LONG + "Yes. " + " ".join(f"Then came sentence number {number} of this text." for number in range(3))


class SmallDevice(Device):
    """Plays in real time, beginning START_S late, and counts how often its buffer overflows or runs empty.

    It reports its playback twice a second.
    """

    def __init__(self, url: str, token: str, audio_format: str | None, buffer_ms: int | None = BUFFER_MS) -> None:
        super().__init__(url, token, format=audio_format)
        self.audio_format = audio_format or DEVICE_FORMATS[0]
        self.buffer_ms = buffer_ms
        self.overflows = self.underruns = 0
        self.fullest_s = 0.0
        self._buffered_s = 0.0
        self._at = self._reported_at = 0.0
        self._plays = self._ends = False
        self._lengths: dict[str, float] = {}  # of the speeches, in seconds, in their order
        self._played_s = 0.0  # of all speeches
        self._pages, self._length = PageReader(), SoundLength()  # of Opus

    async def send(self, frame: Frame) -> None:
        if frame["type"] == "conversation.start" and self.buffer_ms is not None:
            frame = {**frame, "buffer_ms": self.buffer_ms}
        await super().send(frame)

    async def receive(self) -> Frame | bytes:
        frame = await super().receive()
        self._play(time.monotonic())
        if isinstance(frame, bytes):
            seconds = self._seconds(frame)
            self._buffered_s += seconds
            self._lengths[list(self._lengths)[-1]] += seconds
            self._plays = self._plays or self._buffered_s >= START_S
            self._ends = False
            self.fullest_s = max(self.fullest_s, self._buffered_s)
            self.overflows += self._buffered_s > BUFFER_MS / 1000
        elif frame["type"] == "speech.started":
            self._lengths[frame["id"]] = 0.0
            self._pages, self._length = PageReader(), SoundLength()
        elif frame["type"] == "speech.finished":
            self._plays = self._ends = True
        elif frame["type"] == "speech.interrupted":
            self._buffered_s, self._plays = 0.0, False
            self._lengths, self._played_s = {}, 0.0
        if self._plays and time.monotonic() > self._reported_at + 0.5:
            self._reported_at = time.monotonic()
            await self._report()
        return frame

    async def _report(self) -> None:
        before_s = 0.0
        for speech_id, length_s in self._lengths.items():
            if before_s <= self._played_s < before_s + length_s:
                await self.send({"type": "progress", "id": speech_id, "ms": int((self._played_s - before_s) * 1000)})
            before_s += length_s

    def _seconds(self, audio: bytes) -> float:
        if self.audio_format.startswith("opus"):
            return sum(map(self._length.feed, self._pages.feed(audio)))
        return len(audio) / FORMATS[self.audio_format].bytes_per_second

    def _play(self, now: float) -> None:
        if self._plays:
            self._played_s += min(now - self._at, self._buffered_s)
            self._buffered_s -= now - self._at
            if self._buffered_s <= 0:
                self.underruns += not self._ends
                self._buffered_s, self._plays = 0.0, False
        self._at = now


async def converse(server: ServerProcess, patient: Member, audio_format: str) -> SmallDevice:
    async with SmallDevice(server.ws, patient.token, audio_format) as device:
        await device.start(greeting=False)
        for speech_id, text in (("a", TEXT), ("b", "And this is another one.")):
            await device.send({"type": "speak", "id": speech_id, "text": text})
        async with asyncio.timeout(120):
            while device.types().count("speech.finished") < 2:
                await device.receive()
        for speech_id in "ab":
            spoken = device.speeches[speech_id]
            assert (spoken.terminal["source"], spoken.terminal["bytes"]) == ("live", len(spoken.audio))
    return device


@pytest.mark.parametrize("rate", ["0.70", "1.00", "1.20"])
async def test_a_small_buffer_neither_overflows_nor_runs_empty(
    server: ServerProcess, sandbox: SandboxProcess, member: Callable[..., Member], rate: str
) -> None:
    sandbox.settings(concurrency=20)
    patients = [await in_database(partial(member, name, speech_rate=rate)) for name in DEVICE_FORMATS]
    conversations = [
        asyncio.create_task(converse(server, patient, name))
        for patient, name in zip(patients, DEVICE_FORMATS, strict=True)
    ]
    await eventually(lambda: len(sandbox.requests()), wanted=lambda number: number >= len(DEVICE_FORMATS), within_s=60)
    await eventually(lambda: server.gauge("voicecare_slots_held") == 0)
    assert not any(task.done() for task in conversations), "the slots were free while the devices played"
    devices = await asyncio.gather(*conversations)
    found = {device.audio_format: (device.overflows, device.underruns) for device in devices}
    assert found == dict.fromkeys(DEVICE_FORMATS, (0, 0))
    assert all(device.fullest_s > 1.5 for device in devices)


async def test_a_conversation_that_the_server_opens_keeps_to_the_buffer_of_the_device(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with SmallDevice(server.ws, alice.token, "pcm_16000") as device:
        await device.start(greeting=False)
    async with SmallDevice(server.ws, alice.token, "pcm_16000") as device:
        speech_id = await submit(alice, LONG)
        await device.wait_for_frame("speech.finished", id=speech_id)
        assert (device.overflows, device.underruns) == (0, 0)
        assert device.fullest_s > 1.5
        device.buffer_ms = None
        await device.start(greeting=False)
    row = await in_database(DeviceRow.objects.get, pk=alice.device.pk)
    assert row.buffer_ms is None


async def test_after_an_interrupt_the_next_speech_fills_the_buffer_immediately(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with SmallDevice(server.ws, alice.token, "pcm_16000") as device:
        await device.start(greeting=False)
        await device.start_speech("a", LONG)
        await device.wait_for_audio("a")
        await device.send({"type": "interrupt"})
        await device.wait_for_frame("speech.interrupted", id="a")
        await device.send({"type": "speak", "id": "b", "text": LONG})
        began = time.monotonic()
        while len(device.speeches["b"].audio if "b" in device.speeches else b"") < 1.5 * 32_000:
            await device.receive()
        assert time.monotonic() - began < 10
        await device.send({"type": "interrupt"})
        frame = await device.wait_for_frame("speech.interrupted", id="b")
        assert frame["bytes"] == len(device.speeches["b"].audio)
        await device.assert_nothing_pending()
        assert device.overflows == 0


@pytest.mark.parametrize("buffer_ms", [499, 600_001, "2400", 1.5, True])
async def test_a_buffer_that_cannot_be_is_refused(server: ServerProcess, alice: Member, buffer_ms: object) -> None:
    async with Device(server.ws, alice.token) as device:
        error = await device.request(type="conversation.start", buffer_ms=buffer_ms)
        assert (error["type"], error["code"]) == ("error", "bad_message")
        assert "buffer_ms" in error["message"]
        assert (await device.start(greeting=False))["type"] == "conversation.started"


# What was heard


async def heard_ms(speech_id: str) -> int | None:
    return (await in_database(Utterance.objects.get, client_speech_id=speech_id)).played_ms


async def test_what_a_device_has_played_is_kept(server: ServerProcess, sandbox: SandboxProcess, alice: Member) -> None:
    async with Device(server.ws, alice.token, format="pcm_16000") as device:
        await device.start(greeting=False)
        spoken = [await device.speak("This is how long it takes to say this.", name) for name in ("a", "b", "c")]
        length_ms = len(spoken[0].audio) // 32
        for ms in range(0, length_ms, 500):
            await device.send({"type": "progress", "id": "a", "ms": ms})
        await device.send({"type": "progress", "id": "a", "ms": length_ms})
        await eventually(lambda: heard_ms("a"), wanted=lambda ms: ms == length_ms)
        await device.send({"type": "progress", "id": "b", "ms": 700})
    await eventually(lambda: heard_ms("b"), wanted=lambda ms: ms == 700)
    assert await heard_ms("c") is None


# Acknowledgements that come too early


async def test_a_delivery_that_is_acknowledged_too_early_is_repeated_once(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    async with SmallDevice(server.ws, alice.token, None) as device:
        await device.start(greeting=False)
        speech_id = await submit(alice, "This message takes a few seconds to be heard.")
        await device.wait_for_frame("speech.started", id=speech_id)
        await device.send({"type": "ack", "id": speech_id})
        await device.wait_for_frame("speech.finished", id=speech_id)
        await device.wait_for_frame("speech.started", id=speech_id)
        await device.send({"type": "ack", "id": speech_id})
        await device.wait_for_frame("speech.finished", id=speech_id)
        await wait_until_state(speech_id, "heard")
        await asyncio.sleep(2.5)
        await device.assert_nothing_pending()
    row = await in_database(Utterance.objects.get, pk=speech_id.removeprefix("srv-"))
    assert (row.doubted_attempt, row.attempts) == (1, 2)


@pytest.mark.parametrize("plays", [True, False])
async def test_an_ack_after_playback_and_one_of_a_device_that_knows_no_playback_count(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, plays: bool
) -> None:
    kind = partial(SmallDevice, audio_format=None) if plays else Device
    async with kind(server.ws, alice.token) as device:
        await device.start(greeting=False)
        speech_id = await submit(alice, "This message takes a few seconds to be heard.")
        await device.wait_for_frame("speech.finished", id=speech_id)
        if plays:
            await asyncio.sleep(len(device.speeches[speech_id].audio) / 16_000)
        await device.send({"type": "ack", "id": speech_id})
        await wait_until_state(speech_id, "heard")
    row = await in_database(Utterance.objects.get, pk=speech_id.removeprefix("srv-"))
    assert (row.doubted_attempt, row.attempts) == (None, 1)
