"""The output of the encoders, decoded by FFmpeg."""

import io
from itertools import pairwise

import av
import numpy as np
import pytest

from voicecare.audio.encoders import Encoder
from voicecare.audio.formats import FORMATS, AudioFormat

RATE = 22050
CONTAINERS = {"mp3": "mp3", "opus": "ogg", "wav": "wav", "pcm": "s16le", "ulaw": "mulaw", "alaw": "alaw"}


def tone(seconds: float, hertz: float = 440.0) -> bytes:
    t = np.arange(int(seconds * RATE)) / RATE
    return (np.sin(2 * np.pi * hertz * t) * 12000).astype("<i2").tobytes()


def encode(fmt: AudioFormat, pcm: bytes, piece: int = 4410) -> bytes:
    encoder = Encoder(fmt)
    pieces = [encoder.feed(pcm[at : at + piece]) for at in range(0, len(pcm), piece)]
    return b"".join(pieces) + encoder.finish()


def decode(fmt: AudioFormat, data: bytes) -> np.ndarray:
    """Return all samples. Raises for the first packet that FFmpeg rejects."""
    raw = fmt.codec in ("pcm", "ulaw", "alaw")
    options = {"sample_rate": str(fmt.sample_rate), "ch_layout": "mono"} if raw else {}
    with av.open(io.BytesIO(data), format=CONTAINERS[fmt.codec], options=options) as container:
        resampler = av.AudioResampler("s16", "mono", fmt.sample_rate)
        frames = [*container.decode(audio=0), None]
        arrays = [made.to_ndarray().ravel() for frame in frames for made in resampler.resample(frame)]
    return np.concatenate(arrays)


def frame_starts(data: bytes) -> list[int]:
    """Return the positions at which FFmpeg finds frames."""
    with av.open(io.BytesIO(data), format="mp3") as container:
        return [packet.pos for packet in container.demux(audio=0) if packet.size]


def loudness(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_encoded_audio_decodes_to_the_same_sound(fmt):
    data = encode(fmt, tone(2.0))
    samples = decode(fmt, data)
    assert len(samples) / fmt.sample_rate == pytest.approx(2.0, abs=0.12)
    middle = samples[fmt.sample_rate // 2 : fmt.sample_rate * 3 // 2]
    assert loudness(middle) == pytest.approx(12000 / 2**0.5, rel=0.06)
    assert abs(np.fft.rfft(middle)).argmax() == pytest.approx(440, abs=1)


@pytest.mark.parametrize("fmt", [f for f in FORMATS.values() if f.codec != "opus"], ids=lambda f: f.name)
def test_the_stream_has_the_named_rate(fmt):
    assert len(encode(fmt, tone(3.0))) / 3.0 == pytest.approx(fmt.bytes_per_second, rel=0.06)


def test_mp3_has_only_frames_of_constant_size():
    data = encode(FORMATS["mp3_44100_128"], tone(2.0))
    starts = frame_starts(data)
    assert starts[0] == 0
    assert {after - before for before, after in pairwise(starts)} <= {417, 418}
    assert b"Xing" not in data
    assert b"Info" not in data


def test_an_encoder_without_input_gives_an_empty_stream():
    assert Encoder(FORMATS["mp3_44100_128"]).finish() == b""
    assert len(Encoder(FORMATS["wav_16000"]).finish()) == 44
    assert Encoder(FORMATS["pcm_16000"]).feed(b"") == b""


def test_resampling_keeps_the_duration():
    encoder = Encoder(FORMATS["pcm_16000"], input_rate=48000)
    data = encoder.feed(bytes(96000)) + encoder.finish()
    assert len(data) == pytest.approx(32000, abs=64)
