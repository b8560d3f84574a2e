"""The metrics that the worker process sends to its parent. They contain measurements only, no decision."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AudioMetrics:
    """Metrics of one decoded recording.

    Ratios are 0..1. Levels are RMS in dB below full scale. The fields from `speech_ratio` on describe the analyzed
    windows, mixed to one channel.
    """

    codec: str
    sample_rate_hz: int
    channels: int
    duration_s: float
    is_cut_short: bool  # the recording is longer than MAX_DECODED_S; the rest was not decoded
    clipping_ratio: float
    dead_channels: int
    channels_cancel: bool
    speech_ratio: float
    snr_db: float
    loudness_dbfs: float  # of the speech
    crest_db: float  # peak of the speech above its loudness
    tone_ratio: float  # part of the noise power that is in steady tones
    hum_ratio: float  # part of the noise power that is in mains hum
    decay_db: float  # how far the level falls within 100 ms where it falls fastest; low in a room with echo
