"""Received streams: wrong formats are detected, and what is forwarded can follow other audio without an error."""

import struct
from itertools import product

import pytest

from tests.sound import decode_strictly
from tests.voicecare.audio.test_encoders import encode, tone
from tests.voicecare.audio.test_framing import ID3
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS, AudioFormat
from voicecare.audio.received import ReceivedAudio, WrongFormat

MP3 = FORMATS["mp3_44100_128"]
SMALL_MP3 = FORMATS["mp3_22050_32"]
ID3V1 = b"TAG" + b"Good morning".ljust(125, b"\0")
PICTURE = b"ID3\x03\x00\x00\x00\x01\x1f\x00" + bytes(range(256)) * 80  # longer than a chunk, with bytes like a header
RAW = ("pcm_16000", "pcm_24000", "ulaw_8000", "alaw_8000")
STEPS = [1, 7, 400, 4096, 10**6]


def info_frame(fmt: AudioFormat, mark: bytes = b"Xing", *, has_checksum: bool = False) -> bytes:
    """A frame of silence with the notes of an encoder, as in front of every file that LAME writes."""
    frame = bytearray(encode(fmt, bytes(44100)))
    size = next(at for at in range(100, 2000) if frame[at : at + 2] == frame[:2])
    head = bytes((0xFF, frame[1] & ~has_checksum, frame[2], frame[3]))
    side = 32 if mark == b"VBRI" else 17 if fmt.sample_rate >= 32000 else 9
    return (head + bytes(2 * has_checksum + side) + mark + struct.pack(">III", 3, 99, 9999)).ljust(size, b"\0")


def received(fmt: AudioFormat, stream: bytes, step: int = 4096) -> bytes:
    audio = ReceivedAudio(fmt)
    return b"".join(audio.feed(stream[at : at + step]) for at in range(0, len(stream), step)) + audio.finish()


@pytest.mark.parametrize(("fmt", "step"), [*product(FORMATS.values(), STEPS[1:])], ids=str)
def test_a_stream_without_a_tag_stays_as_it_is(fmt: AudioFormat, step: int):
    stream = encode(fmt, tone(0.4))
    assert received(fmt, stream, step) == stream
    assert received(fmt, stream[:-333], step) == stream[:-333]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fmt", [MP3, SMALL_MP3], ids=str)
@pytest.mark.parametrize(
    "lead",
    [
        lambda fmt: ID3,
        lambda fmt: PICTURE,
        lambda fmt: ID3 + PICTURE + ID3,
        lambda fmt: info_frame(fmt, b"Xing"),
        lambda fmt: ID3 + info_frame(fmt, b"Info"),
        lambda fmt: ID3 + info_frame(fmt, b"VBRI"),
        lambda fmt: info_frame(fmt, b"Xing", has_checksum=True),
        lambda fmt: b"\0" * 100,
        lambda fmt: b"\xff\xfb\x00\x00 some bytes that are no frame ID3",
        lambda fmt: ID3 + b"\0" * 1000,
    ],
)
def test_what_stands_before_the_sound_of_an_mp3_is_dropped(lead, fmt: AudioFormat, step: int):
    stream = encode(fmt, tone(0.4))
    assert received(fmt, lead(fmt) + stream, step) == stream


def test_a_tag_at_the_end_of_an_mp3_is_dropped():
    stream = encode(MP3, tone(0.4))
    for step in (130, 417, 4096, 10**6):
        assert received(MP3, stream + ID3V1, step) == stream
    for step in (1, 130, 417, 10**6):
        assert received(MP3, stream[:-50] + b"TAG" + stream[-50:], step) == stream[:-50] + b"TAG" + stream[-50:]
        assert received(MP3, stream[:300] + b"TAG" + stream[300:], step) == stream[:300] + b"TAG" + stream[300:]


@pytest.mark.parametrize("fmt", [MP3, SMALL_MP3], ids=str)
def test_tagged_streams_in_a_row_decode_without_an_error_or_a_lost_frame(fmt: AudioFormat):
    one, other = encode(fmt, tone(0.4)), encode(fmt, tone(0.6, 880))
    tagged = ID3 + info_frame(fmt) + one + ID3V1
    with pytest.raises(AssertionError):
        decode_strictly(tagged + tagged)
    apart = 2 * decode_strictly(one) + decode_strictly(other)
    assert decode_strictly(received(fmt, tagged) + received(fmt, other) + received(fmt, tagged)) == apart


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("requested", "sent"),
    [
        *product(RAW, ("mp3_44100_128", "mp3_22050_32")),
        *product((*RAW, "mp3_44100_128", "mp3_22050_32"), ("wav_16000", "opus_48000_32")),
        *product(("mp3_44100_128",), ("pcm_16000", "pcm_44100", "ulaw_8000", "mp3_22050_32")),
        *product(("mp3_22050_32",), ("pcm_22050", "alaw_8000", "mp3_44100_128", "mp3_44100_32")),
        *product(("opus_48000_64", "wav_16000"), ("mp3_44100_128", "pcm_16000")),
    ],
)
def test_another_format_is_noticed(requested: str, sent: str, step: int):
    stream = encode(FORMATS[sent], tone(0.4))
    with pytest.raises(WrongFormat):
        received(FORMATS[requested], stream, step)


@pytest.mark.parametrize("format_name", ["pcm_16000", "ulaw_8000", "mp3_44100_128"])
@pytest.mark.parametrize(
    "begin", [ID3, b"fLaC\0\0\0\x22", b"FORM\0\0\0\0AIFF", b"\x1aE\xdf\xa3", b".snd", b"RF64\xff\xff\xff\xffWAVE"]
)
def test_the_mark_of_a_container_is_noticed_before_anything_is_forwarded(begin: bytes, format_name: str):
    audio = ReceivedAudio(FORMATS[format_name])
    if (format_name, begin) == ("mp3_44100_128", ID3):
        assert audio.feed(begin) == b""
        return
    with pytest.raises(WrongFormat):
        audio.feed(begin + bytes(100))


@pytest.mark.parametrize("text", [b"<html><body>Busy.</body></html>" * 200, b'{"detail": "busy"}' * 300, bytes(9000)])
def test_what_has_no_frame_is_no_mp3(text: bytes):
    with pytest.raises(WrongFormat):
        received(MP3, text)


@pytest.mark.parametrize("stream", [b"", b"\xff", b"ID3", ID3, ID3 + b"\xff\xfb\x90"])
def test_a_stream_without_audio_is_no_mp3(stream: bytes):
    with pytest.raises(WrongFormat):
        received(MP3, stream)


@pytest.mark.parametrize("format_name", ["pcm_16000", "ulaw_8000"])
@pytest.mark.parametrize("begin", [b"\xff\xfb\x90\xc4", b"\xff\xfb", b"I", b"ID", b"RI", b"{", b"<", b"\0", b"OggO"])
def test_samples_that_look_like_the_beginning_of_something_else_are_audio(begin: bytes, format_name: str):
    samples = begin + bytes(3000)
    for step in STEPS:
        assert received(FORMATS[format_name], samples, step) == samples


@pytest.mark.parametrize("format_name", DEVICE_FORMATS)
def test_the_first_bytes_of_sound_are_forwarded_immediately(format_name: str):
    fmt = FORMATS[format_name]
    stream = encode(fmt, tone(0.2))
    assert ReceivedAudio(fmt).feed(stream[:50]) == stream[:50]
