"""Test recordings of good and bad quality, made with espeak, numpy and FFmpeg."""

import asyncio
import io
import struct
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from tests.waiting import eventually
from voicecare.providers.espeak.client import EspeakVoice, OfflineSynthesizer

Sound = NDArray[np.float64]  # samples, or channels by samples; full scale is 1
RATE = 44100

_TEXT = (
    "The old lighthouse stood at the end of the pier. Every evening my father walked there with his dog, and he told "
    "me about the ships that came in. I remember the smell of salt and of fresh bread from the bakery. On Sundays we "
    "ate apple cake in the garden, and my grandmother sang songs that nobody else knew. Do you remember that? "
)
_CONTAINERS = {"libmp3lame": "mp3", "aac": "ipod", "alac": "ipod"}
_SPEECH_RMS = 0.1


# Sounds


async def _synthesize(voice: EspeakVoice) -> bytes:
    espeak = OfflineSynthesizer()
    await espeak.start()
    try:
        await eventually(lambda: espeak.is_running)  # the start can take long on a busy machine
        return b"".join([part async for part in espeak.speak(_TEXT * 12, voice, "pcm_44100")])
    finally:
        await espeak.close()


@cache
def _story(language: str, variant: str) -> Sound:
    """Some minutes of a synthetic voice that reads a text."""
    return np.frombuffer(asyncio.run(_synthesize(EspeakVoice(language, variant))), "<i2") / 32768


def speech(seconds: float, *, language: str = "en", variant: str = "", rate: int = RATE) -> Sound:
    """Speech without noise, with the pauses of reading, at -20 dBFS."""
    story = _story(language, variant)
    sound = story[: int(seconds * RATE)]
    if len(sound) < int(seconds * RATE):
        raise ValueError(f"the story ends after {len(story) / RATE:.0f} s")
    return resampled(sound * _SPEECH_RMS / rms(sound), rate, seconds)


def resampled(sound: Sound, rate: int, seconds: float) -> Sound:
    if rate == RATE:
        return sound
    resampler = av.AudioResampler("dbl", "mono", rate)
    frames = [*resampler.resample(_frame(sound[None], RATE)), *resampler.resample(None)]
    whole = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    return np.resize(whole, int(seconds * rate))


def white(count: int, seed: int = 1) -> Sound:
    return np.random.default_rng(seed).normal(size=count)


def pink(count: int, seed: int = 1) -> Sound:
    spectrum = np.fft.rfft(white(count, seed))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)


def babble(count: int, seed: int = 1) -> Sound:
    """Many simultaneous voices."""
    random = np.random.default_rng(seed)
    voices = [_story("en", variant) for variant in ("m1", "m3", "f1", "f2", "f4", "m5")] * 2
    return sum((np.roll(np.resize(voice, count), random.integers(count)) for voice in voices), np.zeros(count))


def hum(count: int, mains_hz: int = 50, rate: int = RATE) -> Sound:
    t = np.arange(count) / rate
    return sum((np.sin(2 * np.pi * mains_hz * k * t + k) / k for k in (1, 2, 3, 4, 6)), np.zeros(count))


def chord(count: int, rate: int = RATE) -> Sound:
    """Chords that change every second, similar to music."""
    t = np.arange(count) / rate
    roots = np.array([261.6, 349.2, 392.0, 220.0])[(t.astype(int)) % 4]
    phase = np.cumsum(roots) / rate
    return sum((np.sin(2 * np.pi * phase * step) / (k + 1) for k, step in enumerate((1, 1.26, 1.5, 2, 3))), 0 * t)


def mixed(voice: Sound, noise: Sound, snr_db: float) -> Sound:
    """Adds noise that is `snr_db` below the level of the speech without its pauses."""
    frames = voice[: len(voice) // 1323 * 1323].reshape(-1, 1323)
    levels = np.sqrt(np.mean(frames**2, axis=1))
    speaking = np.sqrt(np.mean(levels[levels > levels.max() / 30] ** 2))
    return voice + noise * speaking / rms(noise) / 10 ** (snr_db / 20)


def in_a_hall(voice: Sound, rt60_s: float, seed: int = 1) -> Sound:
    """Adds an echo that decays by 60 dB in `rt60_s` seconds."""
    count = int(rt60_s * RATE)
    tail = white(count, seed) * 10 ** (-3 * np.arange(count) / count) * 0.02
    tail[0] = 1.0
    size = len(voice) + count
    echoing = np.fft.irfft(np.fft.rfft(voice, size) * np.fft.rfft(tail, size), size)[: len(voice)]
    return echoing * rms(voice) / rms(echoing)


def rms(sound: Sound) -> float:
    return float(np.sqrt(np.mean(np.square(sound))))


# Files


def encoded(
    sound: Sound, codec: str, rate: int = RATE, *, container: str = "", bit_rate: int = 64_000, **options: str
) -> bytes:
    """Encodes the sound in a file on disk, because some containers need to seek. `options` are for the container."""
    channels = np.atleast_2d(sound)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        kind = container or _CONTAINERS.get(codec, "wav")
        with av.open(str(path), "w", format=kind, options=dict(options)) as output:
            _encode(output, channels, codec, rate, bit_rate)
        return path.read_bytes()


def silent_hours(hours: float) -> bytes:
    """Hours of silence as AAC in M4A, in CD quality. Repeats the last packet. Eight hours are 9.9 MB."""
    file = io.BytesIO()
    short = encoded(np.zeros(RATE), "aac")
    with av.open(io.BytesIO(short)) as source, av.open(file, "w", format="ipod") as output:
        track = source.streams.audio[0]
        silence = [bytes(packet) for packet in source.demux(track) if packet.size]
        stream = output.add_stream_from_template(track)
        for number in range(int(hours * 3600 * RATE / 1024)):
            packet = av.Packet(silence[min(number, len(silence) - 1)])
            packet.stream, packet.time_base, packet.duration = stream, track.time_base, 1024
            packet.pts = packet.dts = number * 1024
            output.mux(packet)
    return file.getvalue()


def _encode(output: av.container.OutputContainer, channels: Sound, codec: str, rate: int, bit_rate: int) -> None:
    layout = _layout(channels)
    stream = output.add_stream(codec, rate=rate, layout=layout)
    stream.bit_rate = bit_rate
    resampler = av.AudioResampler(stream.codec_context.format.name, layout, rate)
    for frame in [_frame(channels, rate), None]:
        for resampled_frame in resampler.resample(frame):
            output.mux(stream.encode(resampled_frame))
    output.mux(stream.encode(None))


def _frame(channels: Sound, rate: int) -> av.AudioFrame:
    # Packed, because PyAV cannot read or write a frame with eight planes.
    frame = av.AudioFrame.from_ndarray(channels.T.reshape(1, -1), format="dbl", layout=_layout(channels))
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    return frame


def _layout(channels: Sound) -> str:
    return {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(channels)]


def wav(
    sound: bytes = b"", *, rate: int = 16000, channels: int = 1, bits: int = 16, form: int = 1, **lies: int
) -> bytes:
    """Writes a WAV file with any header. `size` and `block` replace the correct values in the header."""
    block = lies.get("block", channels * bits // 8)
    head = struct.pack("<HHIIHH", form, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
    size = lies.get("size", len(sound))
    chunks = b"fmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", size) + sound
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def id3(picture_bytes: int) -> bytes:
    """An ID3v2 tag with a cover image."""
    picture = b"\x00image/jpeg\x00\x03\x00" + b"\xff\xd8\xff\xe0" + bytes(picture_bytes)
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + size + frame


def video(*, sound: bool, cover: bool = False) -> bytes:
    """Two seconds of a grey picture as MP4. With `cover`, the picture is the cover image of an audio file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        with av.open(str(path), "w", format="mp4") as output:
            pictures = output.add_stream("mjpeg" if cover else "mpeg4", rate=25)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuvj420p" if cover else "yuv420p"
            if cover:
                pictures.disposition = Disposition.attached_pic
            track = output.add_stream("aac", rate=16000, layout="mono") if sound else None
            for _ in range(1 if cover else 50):
                output.mux(pictures.encode(av.VideoFrame(64, 64, pictures.pix_fmt)))
            output.mux(pictures.encode(None))
            if track is not None:
                frame = _frame(0.1 * white(32000)[None], 16000)
                resampler = av.AudioResampler("fltp", "mono", 16000)
                for resampled_frame in [*resampler.resample(frame), *resampler.resample(None)]:
                    output.mux(track.encode(resampled_frame))
                output.mux(track.encode(None))
        return path.read_bytes()
