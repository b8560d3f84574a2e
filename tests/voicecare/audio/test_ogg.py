"""Ogg streams joined to one, as FFmpeg plays it."""

import io
import struct
import subprocess
from collections.abc import AsyncGenerator
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.voicecare.audio.test_encoders import decode, encode, tone
from voicecare.audio.formats import FORMATS
from voicecare.audio.framing import whole_frames
from voicecare.audio.ogg import MAX_PAGE_SAMPLES, SAMPLE_RATE, PageReader, SoundLength, StreamJoiner

OPUS = FORMATS["opus_48000_32"]
STREAMS = [encode(OPUS, tone(1.3)), encode(OPUS, tone(0.7, 880)), encode(OPUS, tone(2.0, 220))]


def join(streams: list[bytes], piece: int = 333) -> tuple[bytes, float]:
    """Return the joined stream and the length of its sound, with the streams fed in pieces."""
    joiner, length, joined, seconds = StreamJoiner(), SoundLength(), b"", 0.0
    for stream in streams:
        for at in range(0, len(stream), piece):
            pages = joiner.feed(stream[at : at + piece])
            joined += pages
            seconds += length.feed(pages)
    return joined + joiner.finish(), seconds


def pages(stream: bytes) -> list[bytes]:
    return list(PageReader().feed(stream))


def header(page: bytes) -> tuple[int, int, int, int]:
    """Return the flags, the position, the serial number and the page number."""
    return struct.unpack_from("<BqII", page, 5)


def reports_of_ffmpeg(stream: bytes) -> str:
    command = ["ffmpeg", "-v", "warning", "-xerror", "-f", "ogg", "-i", "-", "-f", "null", "-"]
    return subprocess.run(command, input=stream, capture_output=True, check=True).stderr.decode()


@pytest.mark.parametrize("piece", [1, 27, 333, 100_000])
def test_streams_are_joined_without_a_gap_or_an_error(piece: int):
    joined, seconds = join(STREAMS, piece)
    assert reports_of_ffmpeg(joined) == ""
    samples = decode(OPUS, joined).astype(float)
    assert len(samples) / SAMPLE_RATE == pytest.approx(seconds, abs=0.01)
    assert seconds == pytest.approx(4.0, abs=0.03 * len(STREAMS))
    loud = np.abs(samples).reshape(-1)[: len(samples) // 480 * 480].reshape(-1, 480).max(axis=1) > 2000
    silent_ms = 10 * max(len(run) for run in "".join("x" if on else "." for on in loud[2:-10]).split("x"))
    assert silent_ms <= 40


def test_the_joined_stream_has_one_pair_of_headers_and_continuous_short_pages():
    joined = pages(join(STREAMS)[0])
    flags, positions, serials, numbers = zip(*map(header, joined), strict=True)
    assert [flag for flag in flags if flag] == [2, 4]
    assert numbers == tuple(range(len(joined)))
    assert set(serials) == {header(STREAMS[0])[2]}
    assert all(0 <= later - earlier <= MAX_PAGE_SAMPLES for earlier, later in pairwise(positions))
    assert b"".join(joined).count(b"OpusHead") == b"".join(joined).count(b"OpusTags") == 1


def test_the_checksums_are_those_of_ogg():
    """FFmpeg drops pages with a wrong checksum if it is asked to check them."""
    joined, seconds = join(STREAMS[:1])
    damaged = joined[:22] + bytes((joined[22] ^ 1,)) + joined[23:]
    assert reports_of_ffmpeg(joined) == ""
    command = ["ffmpeg", "-v", "warning", "-err_detect", "crccheck", "-f", "ogg", "-i", "-", "-f", "null", "-"]
    checked = subprocess.run(command, input=joined, capture_output=True, check=False)
    assert checked.stderr == b""
    assert damaged != joined
    assert seconds > 1.2


def test_the_headers_come_with_the_first_audio():
    joiner, stream = StreamJoiner(), pages(STREAMS[0])
    assert joiner.feed(b"".join(stream[:2])) == b""
    first = joiner.feed(stream[2])
    assert len(pages(first)) >= 3
    assert SoundLength().feed(first) > 0


def test_long_pages_are_cut_into_short_ones():
    """The provider may send pages of a second."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="ogg", options={"page_duration": "1000000"}) as ogg:
        stream = ogg.add_stream("libopus", 48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000 * 3), "<i2"), format="s16", layout="mono")
        frame.sample_rate = 48000
        ogg.mux(stream.encode(frame))
        ogg.mux(stream.encode(None))
    assert len(pages(sink.getvalue())) < 8
    joined, seconds = join([sink.getvalue()])
    assert len(pages(joined)) > 30
    assert seconds == pytest.approx(3.0, abs=0.03)


@given(st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
def test_a_stream_that_breaks_off_can_be_followed_by_another(cut: int):
    whole = b"".join(pages(STREAMS[0][: 200 + cut]))
    joined, seconds = join([whole, STREAMS[1]])
    assert reports_of_ffmpeg(joined) == ""
    assert len(decode(OPUS, joined)) / SAMPLE_RATE == pytest.approx(seconds, abs=0.01)


async def test_of_a_stream_that_breaks_off_only_whole_pages_come():
    async def broken() -> AsyncGenerator[bytes, None]:
        for at in range(0, 2000, 100):
            yield STREAMS[0][at : at + 100]
        raise ConnectionResetError

    got: list[bytes] = []

    async def read() -> None:
        async for chunk in whole_frames(broken(), OPUS):
            got.append(chunk)

    with pytest.raises(ConnectionResetError):
        await read()
    assert b"".join(got) == b"".join(pages(STREAMS[0][:2000]))
    assert all(chunk.startswith(b"OggS") for chunk in got)


@given(st.binary(max_size=400), st.integers(1, 50))
@settings(deadline=None)
def test_bytes_that_are_no_ogg_do_no_harm(noise: bytes, piece: int):
    join([noise, noise[:7] + b"OggS" + noise, STREAMS[1][:100]], piece)


def test_nothing_ends_a_stream_without_audio():
    joiner = StreamJoiner()
    joiner.feed(b"".join(pages(STREAMS[0])[:2]))
    assert joiner.finish() == b""
