"""The metrics that the worker process sends to its parent. They contain measurements only, no decision."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AudioMetrics:
    """Metrics of one decoded recording.

    Ratios are 0..1. Levels ending in `_dbfs` are RMS values in dB relative to full scale. The fields from
    `speech_ratio` on describe the analyzed windows of the recording, mixed to one channel.
    """

    codec: str
    sample_rate_hz: int
    channels: int
    duration_s: float
    is_cut_short: bool  # the recording is longer than MAX_DECODED_S; the rest was not decoded
    is_incomplete: bool  # the end of the file is missing; the rest was decoded
    clipping_ratio: float
    dead_channels: int
    channels_cancel: bool
    offset: float  # mean of the samples; full scale is 1
    peak_dbfs: float  # largest distance of a sample from the offset
    speech_ratio: float
    speech_s: float  # seconds of speech in the whole recording
    silent_end_s: float  # after the last speech
    quiet_start_s: float  # before the first sound that could be speech; 0 if not all of the recording was analyzed
    quiet_end_s: float  # after the last sound that could be speech; 0 if not all of the recording was analyzed
    snr_db: float
    loudness_dbfs: float  # of the speech
    crest_db: float  # peak of the speech above its loudness
    tone_ratio: float  # part of the noise power that is in steady tones
    hum_ratio: float  # part of the noise power that is in mains hum
    decay_db: float  # how far the level falls within 100 ms where it falls fastest; low in a room with echo
    voice_similarity: float  # of the two most different groups of voiceprints, see `analysis.voices`
    minority_voice_ratio: float  # part of the voiceprints that is in the smaller group
    overlap_ratio: float  # part of the speech during which two people speak at the same time
