"""What the child that listens to a recording tells its parent: figures, no verdict."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AudioMetrics:
    """Of one recording that could be read to its end, or for as long as anybody listens (`is_cut_short`).

    Ratios are 0..1; levels are RMS in dB below full scale. From `speech_ratio` on they describe the windows judged,
    mixed to one channel.
    """

    codec: str
    sample_rate_hz: int
    channels: int
    duration_s: float
    is_cut_short: bool
    clipping_ratio: float
    dead_channels: int
    channels_cancel: bool
    speech_ratio: float
    snr_db: float
    loudness_dbfs: float  # of the speech
    crest_db: float  # its peak above its loudness
    tone_ratio: float  # of the noise's power: what stands in steady tones
    hum_ratio: float  # and what of it in those of the mains
    decay_db: float  # how far the sound falls within 100 ms where it falls fastest: little where walls answer
