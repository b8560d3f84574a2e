"""Makes the file that the provider gets: the sound that was inspected, in a format that the provider can read."""

from collections.abc import Iterator

import lameenc  # type: ignore[import-not-found]
import numpy as np

from cloning.samples.decoding import DecodedSample, Decoder, open_container
from cloning.samples.formats import CODECS, MAX_DECODED_S, PCM_CODECS
from cloning.samples.mixing import MonoResampler, read_samples
from cloning.samples.repair import NO_REPAIRS, Repairs

MEDIA_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav", "m4a": "audio/mp4"}

_READABLE = {**CODECS, "wav": PCM_CODECS}
_MP3_RATES_HZ = (48000, 44100, 32000, 24000, 22050, 16000)
_BIT_RATE_KBPS, _LOW_BIT_RATE_KBPS = 128, 64  # ten minutes at the first, fifteen at the second are less than 10 MB
_MAX_S_AT_BIT_RATE = 600
_LAME_QUALITY = 5  # 0 is the best; with 5, fifteen minutes take 4 s of processor time, with 2 twice that


def media_type(sample: DecodedSample, repairs: Repairs) -> str:
    """The content type of the file that the provider gets, for example `audio/mpeg`."""
    return MEDIA_TYPES["mp3" if _must_convert(sample, repairs) else sample.detected.kind]


def replacement(sample: DecodedSample, repairs: Repairs) -> bytes:
    """Returns the bytes of the file that replaces the uploaded one.

    Empty if the provider can get the uploaded file itself. Bytes that other programs may not understand are removed
    from the start of an MP3. A file is converted to a mono MP3 if it is repaired, incomplete or longer than
    MAX_DECODED_S, if the provider may not know its codec or container, if only one of its channels is used, or if its
    sample rate or number of channels changes.
    """
    if not _must_convert(sample, repairs):
        return sample.detected.audio if sample.detected.has_junk else b""
    rate = next((rate for rate in _MP3_RATES_HZ if rate <= sample.sample_rate_hz), _MP3_RATES_HZ[-1])
    lame, mp3, is_empty = lameenc.Encoder(), bytearray(), True
    lame.silence()
    lame.set_channels(1)
    lame.set_in_sample_rate(rate)
    lame.set_out_sample_rate(rate)
    lame.set_bit_rate(_BIT_RATE_KBPS if sample.duration_s <= _MAX_S_AT_BIT_RATE else _LOW_BIT_RATE_KBPS)
    lame.set_quality(_LAME_QUALITY)
    for pcm in _decode_mono(sample, rate, repairs):
        mp3 += lame.encode(pcm)
        is_empty = False
    # LAME raises an error if it is flushed before the first samples.
    return b"" if is_empty else bytes(mp3 + lame.flush())


def _decode_mono(sample: DecodedSample, rate: int, repairs: Repairs) -> Iterator[bytes]:
    """Decodes the recording again, at most MAX_DECODED_S seconds. Yields 16-bit PCM at `rate` Hz.

    The PCM is the channel that was inspected, or the mean of all channels, with the repairs.
    """
    gain = np.float32(10 ** (repairs.gain_db / 20))
    end_s = sample.duration_s - repairs.end_s if repairs.end_s else float(MAX_DECODED_S)
    resampler, decoded_s = MonoResampler("s16", rate), 0.0
    with open_container(sample.detected) as source:
        for frame in Decoder(source, sample.detected).frames():
            channels = np.clip(read_samples(frame), -1, 1)
            is_channel = sample.channel is not None and sample.channel < len(channels)
            mono = channels[sample.channel] if is_channel else channels.mean(axis=0)
            first, end = (max(0, round((at - decoded_s) * frame.sample_rate)) for at in (repairs.start_s, end_s))
            kept = np.clip((mono[first:end] - np.float32(repairs.offset)) * gain, -1, 1)
            for resampled in resampler.resample(kept, frame.sample_rate) if len(kept) else ():
                yield resampled.to_ndarray().tobytes()
            decoded_s += frame.samples / frame.sample_rate
            if decoded_s >= end_s:
                break
    for resampled in resampler.flush():
        yield resampled.to_ndarray().tobytes()


def _must_convert(sample: DecodedSample, repairs: Repairs) -> bool:
    is_wav64 = sample.detected.audio[:4] in (b"RF64", b"BW64")
    is_readable = sample.codec in _READABLE[sample.detected.kind] and not is_wav64
    is_partly_used = sample.is_incomplete or sample.is_cut_short or sample.channel is not None
    return not is_readable or is_partly_used or sample.changes_shape or repairs != NO_REPAIRS
