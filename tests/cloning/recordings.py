"""Recordings as families send them, and as they should not: made by espeak, numpy and FFmpeg."""

import asyncio
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from voicecare.espeak import Espeak, EspeakVoice

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


async def _spoken(voice: EspeakVoice) -> bytes:
    espeak = Espeak()
    await espeak.start()
    try:
        return b"".join([part async for part in espeak.speak(_TEXT * 12, voice, "pcm_44100")])
    finally:
        await espeak.close()


@cache
def _story(language: str, variant: str) -> Sound:
    """Some minutes of somebody reading."""
    return np.frombuffer(asyncio.run(_spoken(EspeakVoice(language, variant))), "<i2") / 32768


def speech(seconds: float, *, language: str = "en", variant: str = "", rate: int = RATE) -> Sound:
    """Read aloud in a quiet room: with the pauses of reading, at -20 dBFS."""
    story = _story(language, variant)
    sound = story[: int(seconds * RATE)]
    if len(sound) < int(seconds * RATE):
        raise ValueError(f"the story ends after {len(story) / RATE:.0f} s")
    return resampled(sound * _SPEECH_RMS / rms(sound), rate, seconds)


def resampled(sound: Sound, rate: int, seconds: float) -> Sound:
    if rate == RATE:
        return sound
    resampler = av.AudioResampler("dbl", "mono", rate)
    made = [*resampler.resample(_frame(sound[None], RATE)), *resampler.resample(None)]
    whole = np.concatenate([frame.to_ndarray().reshape(-1) for frame in made])
    return np.resize(whole, int(seconds * rate))


def white(count: int, seed: int = 1) -> Sound:
    return np.random.default_rng(seed).normal(size=count)


def pink(count: int, seed: int = 1) -> Sound:
    spectrum = np.fft.rfft(white(count, seed))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)


def babble(count: int, seed: int = 1) -> Sound:
    """A roomful of people: many voices, none of which is understood."""
    random = np.random.default_rng(seed)
    voices = [_story("en", variant) for variant in ("m1", "m3", "f1", "f2", "f4", "m5")] * 2
    return sum((np.roll(np.resize(voice, count), random.integers(count)) for voice in voices), np.zeros(count))


def hum(count: int, mains_hz: int = 50, rate: int = RATE) -> Sound:
    t = np.arange(count) / rate
    return sum((np.sin(2 * np.pi * mains_hz * k * t + k) / k for k in (1, 2, 3, 4, 6)), np.zeros(count))


def chord(count: int, rate: int = RATE) -> Sound:
    """Something like music: chords that change every second."""
    t = np.arange(count) / rate
    roots = np.array([261.6, 349.2, 392.0, 220.0])[(t.astype(int)) % 4]
    phase = np.cumsum(roots) / rate
    return sum((np.sin(2 * np.pi * phase * step) / (k + 1) for k, step in enumerate((1, 1.26, 1.5, 2, 3))), 0 * t)


def mixed(voice: Sound, noise: Sound, snr_db: float) -> Sound:
    """With so many dB between the voice while it speaks and the noise."""
    frames = voice[: len(voice) // 1323 * 1323].reshape(-1, 1323)
    levels = np.sqrt(np.mean(frames**2, axis=1))
    speaking = np.sqrt(np.mean(levels[levels > levels.max() / 30] ** 2))
    return voice + noise * speaking / rms(noise) / 10 ** (snr_db / 20)


def in_a_hall(voice: Sound, rt60_s: float, seed: int = 1) -> Sound:
    """With an echo that falls by 60 dB in so many seconds."""
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
    """`options` are the container's. A file on disk: some are written by going back in them."""
    channels = np.atleast_2d(sound)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        kind = container or _CONTAINERS.get(codec, "wav")
        with av.open(str(path), "w", format=kind, options=dict(options)) as output:
            _encode(output, channels, codec, rate, bit_rate)
        return path.read_bytes()


def _encode(output: av.container.OutputContainer, channels: Sound, codec: str, rate: int, bit_rate: int) -> None:
    layout = _layout(channels)
    stream = output.add_stream(codec, rate=rate, layout=layout)
    stream.bit_rate = bit_rate
    resampler = av.AudioResampler(stream.codec_context.format.name, layout, rate)
    for frame in [_frame(channels, rate), None]:
        for made in resampler.resample(frame):
            output.mux(stream.encode(made))
    output.mux(stream.encode(None))


def _frame(channels: Sound, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), format="dblp", layout=_layout(channels))
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    return frame


def _layout(channels: Sound) -> str:
    return {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
