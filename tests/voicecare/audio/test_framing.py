"""Streams that were cut and padded, decoded by FFmpeg."""

import av
import numpy as np
import pytest

from tests.sound import decode_strictly
from tests.voicecare.audio.test_encoders import decode, encode, frame_starts, tone
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS, AudioFormat
from voicecare.audio.framing import FramePadder

ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x23" + b"TSSE\x00\x00\x00\x0f\x00\x00\x03Lavf60.16.100\x00".ljust(35, b"\x00")


def count_parsed_samples(data: bytes) -> int:
    """The number of samples that FFmpeg's MP3 parser and decoder produce, without a container."""
    context = av.CodecContext.create("mp3", "r")
    packets = [*context.parse(data), *context.parse(b"")]
    return sum(frame.samples for packet in packets for frame in context.decode(packet))


def pad(fmt: AudioFormat, data: bytes, chunk: int = 97) -> bytes:
    padder = FramePadder(fmt)
    for at in range(0, len(data), chunk):
        padder.feed(data[at : at + chunk])
    return data + padder.padding()


@pytest.mark.parametrize("name", [name for name in DEVICE_FORMATS if not name.startswith("opus")])  # see test_ogg
def test_a_stream_cut_anywhere_can_be_followed_by_another(name):
    fmt = FORMATS[name]
    first, second = encode(fmt, tone(0.4)), encode(fmt, tone(0.1, 880))
    alone = len(decode(fmt, second))
    for cut in range(len(first) // 2, len(first) // 2 + 430):
        whole = pad(fmt, first[:cut]) + second
        samples = len(decode(fmt, whole))
        assert samples - alone >= cut / fmt.bytes_per_second * fmt.sample_rate - 1
        if fmt.codec == "mp3":
            assert count_parsed_samples(whole) == samples


@pytest.mark.parametrize("name", ["mp3_44100_128", "mp3_22050_32", "mp3_24000_48"])
def test_a_cut_in_the_side_information_of_a_frame_loses_no_frame(name):
    """The sound has clicks, for which the encoder changes its window."""
    fmt = FORMATS[name]
    noise = np.random.default_rng(1).normal(0, 9000, 11025) * (np.arange(11025) % 2500 < 200)
    stream = encode(fmt, noise.clip(-30000, 30000).astype("<i2").tobytes())
    alone = decode_strictly(stream)
    starts = frame_starts(stream)
    for number, start in enumerate(starts, 1):
        for cut in range(start + 1, start + 38):
            frames = decode_strictly(pad(fmt, stream[:cut]) + stream) * len(starts) / alone
            assert frames == number + len(starts), cut


@pytest.mark.parametrize("name", ["mp3_44100_128", "mp3_22050_32", "mp3_24000_48", "mp3_44100_192"])
def test_a_cut_in_the_first_header_is_padded(name):
    fmt = FORMATS[name]
    stream = encode(fmt, tone(0.3))
    for cut in range(6):
        assert len(decode(fmt, pad(fmt, stream[:cut]) + stream)) >= len(decode(fmt, stream))


def test_an_mp3_frame_is_padded_with_zeros_to_its_end():
    fmt = FORMATS["mp3_44100_128"]
    stream = encode(fmt, tone(0.5))
    begin, end = frame_starts(stream)[5:7]
    padder = FramePadder(fmt)
    padder.feed(stream[: begin + 100])
    assert padder.padding() == bytes(end - begin - 100)
    assert padder.padding() == b""


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 418, 5000])
def test_the_size_of_the_chunks_does_not_matter(chunk):
    fmt = FORMATS["mp3_44100_128"]
    stream = ID3 + encode(fmt, tone(0.5))
    assert pad(fmt, stream, chunk) == stream
    assert pad(fmt, stream[:-50], chunk) == stream[:-50] + bytes(50)


def test_padding_resets_the_tracker_for_the_next_stream():
    fmt = FORMATS["mp3_44100_128"]
    stream = encode(fmt, tone(0.5))
    padder = FramePadder(fmt)
    padder.feed(stream[:1000])
    padder.padding()
    padder.feed(ID3 + stream[:-50])
    assert padder.padding() == bytes(50)


def test_bytes_that_are_not_mp3_are_skipped():
    fmt = FORMATS["mp3_44100_128"]
    stream = encode(fmt, tone(0.5))
    junk = b"<html>\xff\xff\x00 ID\xff\xfb\xff\xff" * 40
    assert pad(fmt, junk + stream[:-50]) == junk + stream[:-50] + bytes(50)
    assert pad(fmt, junk + b"text") == junk + b"text"


def test_a_cut_tag_is_padded_and_an_absurd_tag_is_skipped():
    fmt = FORMATS["mp3_44100_128"]
    assert pad(fmt, ID3[:20]) == ID3[:20] + bytes(25)
    assert pad(fmt, ID3[:5]) == ID3[:5] + bytes(5)
    assert pad(fmt, b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(20)).endswith(bytes(20))
    assert len(pad(fmt, b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(20))) == 30


@pytest.mark.parametrize(("name", "given", "missing"), [("pcm_16000", 3, 1), ("pcm_16000", 4, 0), ("ulaw_8000", 3, 0)])
def test_cut_samples_are_padded(name, given, missing):
    padder = FramePadder(FORMATS[name])
    padder.feed(b"x" * given)
    assert padder.padding() == bytes(missing)
    padder.feed(b"x" * given)
    assert padder.padding() == bytes(missing)
