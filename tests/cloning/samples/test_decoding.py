"""Format detection by content, the true duration, and the refusal of bad files."""

import io
import random
import struct
import time
import zipfile
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from cloning.samples.decoding import DecodedSample, decode
from cloning.samples.formats import MAX_BYTES, MAX_DECODED_S, UnreadableAudio
from cloning.samples.mixing import RATE
from tests.cloning.samples.recordings import encoded, id3, pink, silent_hours, video, wav, white
from voicecare.audio.framing import mp3_frame_size

SECONDS = 6
LOW_RATE = 16000


@cache
def tone(
    codec: str = "pcm_s16le", seconds: float = SECONDS, channels: int = 1, rate: int = LOW_RATE, **options
) -> bytes:
    """A tone with little noise. These tests need no speech."""
    sound = 0.2 * np.sin(np.arange(int(seconds * rate)) * 0.1) + 0.01 * white(int(seconds * rate))
    return encoded(np.tile(sound, (channels, 1)), codec, rate, **options)


def mp3(**options) -> bytes:
    return tone("libmp3lame", **options)


def bare_mp3(**options) -> bytes:
    """Frames only, without a tag or a header with their number."""
    return mp3(write_xing="0", id3v2_version="0", **options)


def free_format_mp3() -> bytes:
    """Frames whose header has no bit rate, so that their size is not known."""
    audio, at = bytearray(bare_mp3()), 0
    while at + 4 <= len(audio):
        size = mp3_frame_size(audio[at + 1], audio[at + 2])
        audio[at + 2] &= 0x0F
        at += size
    return bytes(audio)


RESPONSE_HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 480000\r\n\r\n"
APE_TAG = b"APETAGEX" + struct.pack("<4I", 2000, 52, 1, 0xA0000000) + bytes(8) + bytes(52)


def id3_with_wrong_size(error: int) -> bytes:
    tag = id3(200)
    size = len(tag) - 10 + error
    return tag[:6] + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + tag[10:]


def mp3_with_frame_count(frames: int) -> bytes:
    """An MP3 of 169 frames whose header has another frame count."""
    data = mp3()
    at = data.index(b"Info") + 8
    return data[:at] + struct.pack(">I", frames) + data[at + 4 :]


def fragmented(**options) -> bytes:
    return tone("aac", container="mp4", movflags="frag_keyframe+empty_moov+default_base_moof", **options)


def mp3_of_two_bit_rates() -> bytes:
    """An MP3 with two bit rates and no header with its length."""
    return tone("libmp3lame", seconds=3, write_xing="0", bit_rate=64_000, id3v2_version="0") + tone(
        "libmp3lame", seconds=3, write_xing="0", bit_rate=32_000, id3v2_version="0"
    )


GOOD: dict[str, tuple[Callable[[], bytes], str]] = {
    "mp3": (mp3, "mp3"),
    "mp3 stereo 48 kHz": (lambda: mp3(channels=2, rate=48000), "mp3"),
    "mp3 without header": (lambda: mp3(write_xing="0", id3v2_version="0"), "mp3"),
    "mp3 of two bit rates without header": (mp3_of_two_bit_rates, "mp3"),
    "mp3 with a cover": (lambda: id3(300_000) + mp3(id3v2_version="0"), "mp3"),
    "mp3 with two tags": (lambda: id3(50) + id3(5000) + mp3(), "mp3"),
    "mp3 behind padding": (lambda: bytes(400) + mp3(id3v2_version="0"), "mp3"),
    "mp3 with an old tag behind": (lambda: mp3() + b"TAG" + bytes(125), "mp3"),
    "mp3 that announces less": (lambda: mp3_with_frame_count(10), "mp3"),
    "wav 8 bit": (lambda: tone("pcm_u8"), "pcm_u8"),
    "wav 16 bit": (tone, "pcm_s16le"),
    "wav 24 bit": (lambda: tone("pcm_s24le"), "pcm_s24le"),
    "wav 32 bit": (lambda: tone("pcm_s32le"), "pcm_s32le"),
    "wav float": (lambda: tone("pcm_f32le"), "pcm_f32le"),
    "wav double": (lambda: tone("pcm_f64le"), "pcm_f64le"),
    "wav extensible of six channels": (lambda: tone("pcm_s24le", channels=6), "pcm_s24le"),
    "wav of 192 kHz": (lambda: tone(rate=192_000), "pcm_s16le"),
    "wav that was never finished": (lambda: wav(bytes(SECONDS * LOW_RATE * 2), size=0), "pcm_s16le"),
    "wav of a stream": (lambda: wav(bytes(SECONDS * LOW_RATE * 2), size=0xFFFFFFFF), "pcm_s16le"),
    "wav of eight channels": (lambda: tone(channels=8), "pcm_s16le"),
    "m4a of eight channels of aac": (lambda: tone("aac", channels=8, rate=48000), "aac"),
    "wav of mu-law": (lambda: tone("pcm_mulaw", container="wav"), "pcm_mulaw"),
    "wav of a-law": (lambda: tone("pcm_alaw", container="wav"), "pcm_alaw"),
    "wav of ms adpcm": (lambda: tone("adpcm_ms", container="wav"), "adpcm_ms"),
    "wav of ima adpcm": (lambda: tone("adpcm_ima_wav", container="wav"), "adpcm_ima_wav"),
    "wav of mp3": (lambda: tone("libmp3lame", container="wav"), "mp3"),
    "wav of 64 bits of size": (lambda: tone(container="wav", rf64="always"), "pcm_s16le"),
    "mp3 behind response headers": (lambda: RESPONSE_HEADERS + bare_mp3(), "mp3"),
    "mp3 behind an ape tag": (lambda: APE_TAG + bare_mp3(), "mp3"),
    "mp3 that begins inside a frame": (lambda: bare_mp3()[37:], "mp3"),
    "mp3 whose tag is shorter than it says": (lambda: id3_with_wrong_size(106) + bare_mp3(), "mp3"),
    "mp3 whose tag is longer than it says": (lambda: id3_with_wrong_size(-50) + bare_mp3(), "mp3"),
    "mp3 with a tag larger than the file": (lambda: b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + mp3(), "mp3"),
    "mp3 joined from two rates": (
        lambda: bare_mp3(seconds=3) + bare_mp3(seconds=3, rate=22050),
        "mp3",
    ),
    "mp3 joined from mono and stereo": (lambda: bare_mp3(seconds=3) + bare_mp3(seconds=3, channels=2), "mp3"),
    "m4a aac, description behind": (lambda: tone("aac"), "aac"),
    "m4a aac, description in front": (lambda: tone("aac", movflags="faststart"), "aac"),
    "m4a alac": (lambda: tone("alac"), "alac"),
    "mp4 fragmented": (fragmented, "aac"),
    "mov": (lambda: tone("aac", container="mov"), "aac"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_is_decoded_completely(name: str):
    make, codec = GOOD[name]
    recording = decode(make())
    assert recording.codec == codec
    assert recording.duration_s == pytest.approx(SECONDS, abs=0.13)
    assert len(recording.sound) == pytest.approx(recording.duration_s * RATE, abs=0.1 * RATE)
    assert not recording.is_cut_short


def test_sample_rate_and_channels_are_reported():
    recording = decode(mp3(channels=2, rate=48000))
    assert (recording.sample_rate_hz, recording.channels) == (48000, 2)


LENGTHS = {
    "mp3": lambda seconds, rate: tone("libmp3lame", seconds=seconds, rate=rate),
    "mp3 without header": lambda seconds, rate: tone("libmp3lame", seconds=seconds, rate=rate, write_xing="0"),
    "wav": lambda seconds, rate: tone(seconds=seconds, rate=rate),
    "aac": lambda seconds, rate: tone("aac", seconds=seconds, rate=rate),
    "aac fragmented": lambda seconds, rate: fragmented(seconds=seconds, rate=rate),
    "alac": lambda seconds, rate: tone("alac", seconds=seconds, rate=rate),
}


@pytest.mark.parametrize("rate", [16000, 22050])
@pytest.mark.parametrize("name", LENGTHS)
def test_the_duration_is_exact_enough_for_the_minimum_length(name: str, rate: int):
    """Encoders insert up to 70 ms before the sound and pad the last frame."""
    assert round(decode(LENGTHS[name](60.0, rate)).duration_s, 2) >= 60
    assert round(decode(LENGTHS[name](59.9, rate)).duration_s, 2) < 60


# Unknown formats and incomplete files


def zip_file() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("recording.mp3", mp3())
    return file.getvalue()


def with_random_bytes(data: bytes, share: float, begin: float = 0.1, seed: int = 7) -> bytes:
    """Replaces a share of the data by random bytes."""
    at, size = int(len(data) * begin), int(len(data) * share)
    return data[:at] + random.Random(seed).randbytes(size) + data[at + size :]


def cut(data: bytes, share: float = 0.5) -> bytes:
    return data[: int(len(data) * share)]


def floats(value: float) -> bytes:
    return struct.pack("<f", value) * LOW_RATE * SECONDS


PCM = bytes(LOW_RATE * 2 * SECONDS)
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
BAD: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "nothing": (lambda: b"", {"empty"}),
    "zeros": (lambda: bytes(100_000), {"unknown"}),
    "noise": (lambda: random.Random(1).randbytes(500_000), {"unknown"}),
    "text": (lambda: b"My mother's voice. " * 5000, {"unknown"}),
    "html": (lambda: b"<!doctype html><html><body>Not found</body></html>" * 50, {"unknown"}),
    "pdf": (lambda: b"%PDF-1.7\n" + bytes(5000), {"unknown"}),
    "zip": (zip_file, {"unknown"}),
    "playlist": (lambda: PLAYLIST, {"unknown"}),
    "concat script": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", {"unknown"}),
    "session description": (lambda: b"v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n", {"unknown"}),
    "too many bytes": (lambda: bytes(MAX_BYTES + 1), {"too_large"}),
    "ogg": (lambda: tone("libopus", container="ogg"), {"unknown"}),
    "flac": (lambda: tone("flac", container="flac"), {"unknown"}),
    "webm": (lambda: tone("libopus", container="webm"), {"unknown"}),
    "aiff": (lambda: tone("pcm_s16be", container="aiff"), {"unknown"}),
    "bare aac": (lambda: tone("aac", container="adts"), {"unknown"}),
    "mp3 of free format": (free_format_mp3, {"unknown"}),
    "mp3 of free format with a tag": (lambda: id3(5000) + free_format_mp3(), {"unknown"}),
    "mp2": (lambda: tone("mp2", container="mp2"), {"unknown"}),
    "mp4 around mp3": (lambda: tone("libmp3lame", container="mp4"), {"unknown"}),
    "video with sound": (lambda: video(sound=True), {"video"}),
    "video without sound": (lambda: video(sound=False), {"video"}),
    "tag alone": (lambda: id3(5000), {"damaged"}),
    "tag before something else": (lambda: id3(50) + zip_file(), {"damaged"}),
    "mp3 cut in half": (lambda: cut(mp3()), {"truncated"}),
    "mp3 that announces ten times as much": (lambda: mp3_with_frame_count(1700), {"truncated"}),
    "mp3 half noise": (lambda: with_random_bytes(mp3(), 0.5), {"damaged", "truncated"}),
    "wav cut in half": (lambda: cut(tone()), {"truncated"}),
    "wav that announces an hour": (lambda: wav(PCM, size=3600 * LOW_RATE * 2), {"truncated"}),
    "wav of a header": (wav, {"damaged"}),
    "wav without a header": (lambda: b"RIFF\x24\0\0\0WAVE" + b"LIST\0\0\0\0" * 20, {"truncated"}),
    "wav cut in its header": (lambda: tone()[:20], {"truncated"}),
    "wav of noise behind its name": (lambda: b"RIFF\0\0\0\0WAVE" + random.Random(2).randbytes(9000), {"truncated"}),
    "wav at 0 Hz": (lambda: wav(PCM, rate=0), {"damaged", "odd_shape"}),
    "wav at 1 Hz": (lambda: wav(PCM, rate=1), {"odd_shape"}),
    "wav at 1 GHz": (lambda: wav(PCM, rate=10**9), {"odd_shape"}),
    "wav of no channel": (lambda: wav(PCM, channels=0, block=2), {"damaged", "odd_shape"}),
    "wav of forty channels": (lambda: wav(PCM, channels=40), {"damaged", "odd_shape"}),
    "wav of 64 bits": (lambda: wav(PCM, bits=64), {"unknown"}),
    "wav of what is no number": (lambda: wav(floats(np.nan), bits=32, form=3), {"damaged"}),
    "wav of infinite loudness": (lambda: wav(floats(np.inf), bits=32, form=3), {"damaged"}),
    "m4a of its first box": (lambda: tone("aac")[:28], {"truncated"}),
    "m4a cut before its description": (lambda: cut(tone("aac")), {"truncated"}),
    "m4a cut behind its description": (lambda: cut(tone("aac", movflags="faststart")), {"truncated"}),
    "m4a cut in its last fragment": (lambda: fragmented()[:-500], {"truncated"}),
    "m4a without tracks": (lambda: tone("aac")[:28] + b"\0\0\0\x08moov", {"damaged", "unknown"}),
    "m4a whose sound is noise": (lambda: with_random_bytes(tone("aac"), 0.6), {"damaged"}),
    "alac whose sound is noise": (lambda: with_random_bytes(tone("alac"), 0.6), {"damaged"}),
    "picture in a box": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(3000), {"truncated", "unknown"}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_reason(name: str):
    make, reasons = BAD[name]
    with pytest.raises(UnreadableAudio) as refused:
        decode(make())
    assert refused.value.reason in reasons


def test_there_are_at_least_forty_bad_files():
    assert len(BAD) >= 40


def test_a_cover_image_is_not_a_video():
    assert decode(video(sound=True, cover=True)).codec == "aac"


def test_only_fifteen_minutes_of_a_long_recording_are_decoded():
    long = silent_hours(8)
    assert MAX_BYTES * 0.98 < len(long) <= MAX_BYTES
    began = time.process_time()
    recording = decode(long)
    assert time.process_time() - began < 5
    assert (recording.duration_s, recording.is_cut_short) == (MAX_DECODED_S, True)
    assert len(recording.sound) == pytest.approx(MAX_DECODED_S * RATE, rel=0.01)


# Levels and channels


def levels(*channels: "np.ndarray") -> DecodedSample:
    return decode(encoded(np.array(channels), "pcm_s16le", LOW_RATE))


def test_runs_of_samples_at_full_scale_count_as_clipped():
    loud = np.clip(white(LOW_RATE * SECONDS), -0.3, 0.3)
    assert levels(loud).clipping_ratio == 0
    assert levels(loud / 0.3).clipping_ratio > 0.3
    assert decode(encoded(loud / 0.3, "pcm_u8", LOW_RATE)).clipping_ratio > 0.3
    single_samples = 0.1 * white(LOW_RATE * SECONDS)
    single_samples[::100] = 1.0
    assert levels(single_samples).clipping_ratio == 0


def test_a_silent_channel_is_reported_if_another_is_not_silent():
    sound = 0.1 * pink(LOW_RATE * SECONDS)
    assert levels(sound, 0 * sound).dead_channels == 1
    assert levels(sound, sound / 10).dead_channels == 0
    assert levels(0 * sound, 0 * sound).dead_channels == 0


def test_one_of_two_channels_with_opposite_phase_is_used():
    sound = 0.1 * white(LOW_RATE * SECONDS)
    mirrored = levels(sound, -sound)
    assert mirrored.channels_cancel
    assert mirrored.sound.std() == pytest.approx(3277, rel=0.02)
    assert not levels(sound, sound).channels_cancel
    assert not levels(sound, 0.1 * white(LOW_RATE * SECONDS, seed=2)).channels_cancel
    assert not levels(0 * sound, 0 * sound).channels_cancel


# Random changes


def mutate(data: bytes, seed: int) -> bytes:
    """Changes, removes, repeats and cuts bytes, mostly in the first kilobyte with the headers."""
    chance = random.Random(seed)
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 5, 20, 200))):
        at = chance.randrange(min(len(changed), chance.choice((64, 1024, len(changed)))))
        changed[at] = chance.choice((0, 0xFF, 0x7F, 0x80, chance.randrange(256)))
    at = chance.randrange(len(changed))
    match chance.randrange(6):
        case 0:
            del changed[at:]
        case 1:
            del changed[at : at + chance.randrange(1, 5000)]
        case 2:
            changed[at:at] = changed[: chance.randrange(1, 5000)]
    return bytes(changed)


SEEDS = {
    "mp3": lambda: mp3(seconds=2),
    "wav": lambda: tone(seconds=2),
    "extensible": lambda: tone("pcm_f32le", seconds=1, channels=6),
    "aac": lambda: tone("aac", seconds=2, movflags="faststart"),
    "behind": lambda: tone("aac", seconds=2),
    "alac": lambda: tone("alac", seconds=2, movflags="faststart"),
    "fragmented": lambda: fragmented(seconds=2),
}


@pytest.mark.parametrize("kind", SEEDS)
def test_a_mutated_file_is_decoded_or_refused(kind: str):
    outcomes = set()
    for seed in range(150):
        began = time.process_time()
        try:
            decode(mutate(SEEDS[kind](), seed))
            outcomes.add("read")
        except UnreadableAudio as refused:
            outcomes.add(refused.reason)
        assert time.process_time() - began < 5, seed
    assert {"read", "damaged"} & outcomes
    assert len(outcomes) >= 2
