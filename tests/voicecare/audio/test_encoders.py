"""Real encoders and real decoders: what `Encoder` makes is decoded by FFmpeg, also after it was cut and completed."""

import io
from itertools import pairwise

import av
import numpy as np
import pytest

from voicecare.audio.encoders import Encoder
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS, AudioFormat
from voicecare.audio.framing import FramePadder

RATE = 22050
CONTAINERS = {"mp3": "mp3", "opus": "ogg", "wav": "wav", "pcm": "s16le", "ulaw": "mulaw", "alaw": "alaw"}
ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x23" + b"TSSE\x00\x00\x00\x0f\x00\x00\x03Lavf60.16.100\x00".ljust(35, b"\x00")


def tone(seconds: float, hertz: float = 440.0) -> bytes:
    t = np.arange(int(seconds * RATE)) / RATE
    return (np.sin(2 * np.pi * hertz * t) * 12000).astype("<i2").tobytes()


def encoded(fmt: AudioFormat, pcm: bytes, piece: int = 4410) -> bytes:
    encoder = Encoder(fmt)
    pieces = [encoder.feed(pcm[at : at + piece]) for at in range(0, len(pcm), piece)]
    return b"".join(pieces) + encoder.finish()


def decoded(fmt: AudioFormat, data: bytes) -> np.ndarray:
    """All samples; raises on the first packet that FFmpeg refuses."""
    raw = fmt.codec in ("pcm", "ulaw", "alaw")
    options = {"sample_rate": str(fmt.sample_rate), "ch_layout": "mono"} if raw else {}
    with av.open(io.BytesIO(data), format=CONTAINERS[fmt.codec], options=options) as container:
        resampler = av.AudioResampler("s16", "mono", fmt.sample_rate)
        frames = [*container.decode(audio=0), None]
        arrays = [made.to_ndarray().ravel() for frame in frames for made in resampler.resample(frame)]
    return np.concatenate(arrays)


def parsed_samples(data: bytes) -> int:
    """Samples that FFmpeg's MP3 parser and decoder make of bare bytes, without a container."""
    context = av.CodecContext.create("mp3", "r")
    packets = [*context.parse(data), *context.parse(b"")]
    return sum(frame.samples for packet in packets for frame in context.decode(packet))


def frame_starts(data: bytes) -> list[int]:
    """Where FFmpeg sees frames begin."""
    with av.open(io.BytesIO(data), format="mp3") as container:
        return [packet.pos for packet in container.demux(audio=0) if packet.size]


def loudness(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


def completed(fmt: AudioFormat, data: bytes, chunk: int = 97) -> bytes:
    completer = FramePadder(fmt)
    for at in range(0, len(data), chunk):
        completer.feed(data[at : at + chunk])
    return data + completer.padding()


def test_the_device_formats_are_named_default_first():
    assert DEVICE_FORMATS[0] == "mp3_44100_128"
    assert set(DEVICE_FORMATS) <= set(FORMATS)
    assert len(FORMATS) == 28


def test_a_format_says_its_rate_and_type():
    assert (FORMATS["mp3_44100_128"].bytes_per_second, FORMATS["mp3_44100_128"].mime) == (16000, "audio/mpeg")
    assert (FORMATS["pcm_16000"].bytes_per_second, FORMATS["pcm_16000"].bit_rate) == (32000, None)
    assert FORMATS["ulaw_8000"].bytes_per_second == 8000


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_what_is_encoded_decodes_to_the_same_sound(fmt):
    data = encoded(fmt, tone(2.0))
    samples = decoded(fmt, data)
    assert len(samples) / fmt.sample_rate == pytest.approx(2.0, abs=0.12)
    middle = samples[fmt.sample_rate // 2 : fmt.sample_rate * 3 // 2]
    assert loudness(middle) == pytest.approx(12000 / 2**0.5, rel=0.06)
    assert abs(np.fft.rfft(middle)).argmax() == pytest.approx(440, abs=1)


@pytest.mark.parametrize("fmt", [f for f in FORMATS.values() if f.codec != "opus"], ids=lambda f: f.name)
def test_the_stream_has_the_named_rate(fmt):
    assert len(encoded(fmt, tone(3.0))) / 3.0 == pytest.approx(fmt.bytes_per_second, rel=0.06)


def test_mp3_is_bare_frames_of_one_size():
    data = encoded(FORMATS["mp3_44100_128"], tone(2.0))
    starts = frame_starts(data)
    assert starts[0] == 0
    assert {after - before for before, after in pairwise(starts)} <= {417, 418}
    assert b"Xing" not in data
    assert b"Info" not in data


def test_nothing_fed_is_an_empty_or_silent_stream():
    assert Encoder(FORMATS["mp3_44100_128"]).finish() == b""
    assert len(Encoder(FORMATS["wav_16000"]).finish()) == 44
    assert Encoder(FORMATS["pcm_16000"]).feed(b"") == b""


def test_another_input_rate_keeps_the_duration():
    encoder = Encoder(FORMATS["pcm_16000"], input_rate=48000)
    data = encoder.feed(bytes(96000)) + encoder.finish()
    assert len(data) == pytest.approx(32000, abs=64)


@pytest.mark.parametrize("name", DEVICE_FORMATS)
def test_a_stream_cut_anywhere_is_completed_and_another_can_follow(name):
    fmt = FORMATS[name]
    first, second = encoded(fmt, tone(0.4)), encoded(fmt, tone(0.1, 880))
    alone = len(decoded(fmt, second))
    for cut in range(len(first) // 2, len(first) // 2 + 430):
        whole = completed(fmt, first[:cut]) + second
        samples = len(decoded(fmt, whole))
        assert samples - alone >= cut / fmt.bytes_per_second * fmt.sample_rate - 1
        if fmt.codec == "mp3":
            assert parsed_samples(whole) == samples


@pytest.mark.parametrize("name", ["mp3_44100_128", "mp3_22050_32", "mp3_24000_48", "mp3_44100_192"])
def test_the_first_header_may_be_cut_as_well(name):
    fmt = FORMATS[name]
    stream = encoded(fmt, tone(0.3))
    for cut in range(6):
        assert len(decoded(fmt, completed(fmt, stream[:cut]) + stream)) >= len(decoded(fmt, stream))


def test_an_mp3_frame_is_completed_with_zeros_to_its_end():
    fmt = FORMATS["mp3_44100_128"]
    stream = encoded(fmt, tone(0.5))
    begin, end = frame_starts(stream)[5:7]
    completer = FramePadder(fmt)
    completer.feed(stream[: begin + 100])
    assert completer.padding() == bytes(end - begin - 100)
    assert completer.padding() == b""


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 418, 5000])
def test_the_size_of_the_chunks_does_not_matter(chunk):
    fmt = FORMATS["mp3_44100_128"]
    stream = ID3 + encoded(fmt, tone(0.5))
    assert completed(fmt, stream, chunk) == stream
    assert completed(fmt, stream[:-50], chunk) == stream[:-50] + bytes(50)


def test_after_completing_it_watches_the_next_stream():
    fmt = FORMATS["mp3_44100_128"]
    stream = encoded(fmt, tone(0.5))
    completer = FramePadder(fmt)
    completer.feed(stream[:1000])
    completer.padding()
    completer.feed(ID3 + stream[:-50])
    assert completer.padding() == bytes(50)


def test_junk_is_passed_over():
    fmt = FORMATS["mp3_44100_128"]
    stream = encoded(fmt, tone(0.5))
    junk = b"<html>\xff\xff\x00 ID\xff\xfb\xff\xff" * 40
    assert completed(fmt, junk + stream[:-50]) == junk + stream[:-50] + bytes(50)
    assert completed(fmt, junk + b"text") == junk + b"text"


def test_a_cut_tag_is_completed_and_an_absurd_one_is_junk():
    fmt = FORMATS["mp3_44100_128"]
    assert completed(fmt, ID3[:20]) == ID3[:20] + bytes(25)
    assert completed(fmt, ID3[:5]) == ID3[:5] + bytes(5)
    assert completed(fmt, b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(20)).endswith(bytes(20))
    assert len(completed(fmt, b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(20))) == 30


@pytest.mark.parametrize(("name", "given", "missing"), [("pcm_16000", 3, 1), ("pcm_16000", 4, 0), ("ulaw_8000", 3, 0)])
def test_samples_are_completed(name, given, missing):
    completer = FramePadder(FORMATS[name])
    completer.feed(b"x" * given)
    assert completer.padding() == bytes(missing)
    completer.feed(b"x" * given)
    assert completer.padding() == bytes(missing)
