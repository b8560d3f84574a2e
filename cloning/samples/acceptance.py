"""Decides whether a recording can become a voice clone, and explains the decision in plain words.

Pure: the input is the metrics that the worker process has measured. The error codes are part of the REST API.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

from cloning.samples.formats import CODECS, MAX_BYTES, MAX_DECODED_S
from cloning.samples.measurements import AudioMetrics
from voicecare.core.errors import VoicecareError

__all__ = [
    "CONTENT_TYPES",
    "MAX_BYTES",
    "MIN_SECONDS",
    "Report",
    "SampleRefused",
    "Thresholds",
    "evaluate",
    "unreadable_error",
]

MIN_SECONDS = 60.0
_MEDIA_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav", "m4a": "audio/mp4"}
CONTENT_TYPES = {codec: _MEDIA_TYPES[kind] for kind, codecs in CODECS.items() for codec in codecs}
"""Content type by `Report.codec`. It describes the content of the file, not its name."""

_MIN_CLEAN_SNR_DB = 23.0
_MIN_DENSE_SPEECH_RATIO = 0.6
_MIN_SPEECH_RATIO_FOR_NOISE = 0.1  # with less speech than this, noise is not the reason for the refusal
_MAX_CLIPPING_RATIO = 0.001
# Clean speech has a crest of 17 to 20 dB. MP3 hides the flat peaks of clipped speech, but not the low crest.
_MIN_CREST_DB = 11.0
_MAX_TONE_RATIO = 0.5
_AUDIBLE_NOISE_DBFS = -65.0
_MIN_DECAY_DB = 12.5
_MIN_SNR_FOR_ECHO_DB = 15.0  # with a lower SNR, noise limits the decay and says nothing about echo
_MIN_LOUDNESS_DBFS = -35.0
_MIN_SAMPLE_RATE_HZ = 16000

_SMALLER_FILE_HINT = "Send it in mono, or saved as MP3 or M4A."
_OTHER_FORMAT_HINT = "Save or export the recording as MP3, WAV or M4A, and send that file."


class SampleRefused(VoicecareError):
    """Raised for a recording that cannot become a voice clone.

    `code` is too_short, too_large, unsupported_format, corrupt_audio, too_noisy or mostly_silence.
    """

    code = "corrupt_audio"


class Thresholds(NamedTuple):
    """Minimum values. A recording below one of them is refused.

    They are the settings CLONE_MIN_SNR_DB and CLONE_MIN_SPEECH_RATIO.
    """

    snr_db: float
    speech_ratio: float


@dataclass(frozen=True, slots=True)
class Report:
    """The measured properties of an accepted recording, rounded for display."""

    duration_s: float
    codec: str
    sample_rate_hz: int
    channels: int
    snr_db: float
    speech_ratio: float
    clipping_ratio: float
    loudness_dbfs: float
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Returns the JSON object that the job stores and that `clones/{id}/` shows."""
        return {**asdict(self), "warnings": list(self.warnings)}


_UNREADABLE_ERRORS = {
    "empty": ("corrupt_audio", "The file is empty. Please choose the recording again."),
    "too_large": (
        "too_large",
        f"The file is larger than {MAX_BYTES // 1_000_000} MB. One to two minutes are enough. Uncompressed stereo "
        f"reaches this size in less than a minute. {_SMALLER_FILE_HINT}",
    ),
    "unknown": ("unsupported_format", f"This is not a recording in a supported format. {_OTHER_FORMAT_HINT}"),
    "video": ("unsupported_format", f"This is a video. {_OTHER_FORMAT_HINT}"),
    "odd_shape": (
        "unsupported_format",
        "The recording has an unusual sample rate or number of channels. Save it in mono with 44100 Hz, and send it "
        "again.",
    ),
    "truncated": (
        "corrupt_audio",
        "The file is incomplete. A copy or an upload may have been interrupted. Send it again.",
    ),
    "damaged": (
        "corrupt_audio",
        "The file is damaged and cannot be played to its end. Export the recording again, and send the new file.",
    ),
}


def unreadable_error(reason: str) -> SampleRefused:
    """Returns the error for a file that could not be decoded. `reason` is that of `formats.UnreadableAudio`."""
    code, message = _UNREADABLE_ERRORS[reason]
    return SampleRefused(message, code=code)


def evaluate(metrics: AudioMetrics, thresholds: Thresholds) -> Report:
    """Returns the report of an acceptable recording, or raises SampleRefused.

    The length is checked before the quality. A quieter room does not help if the recording is too short.
    """
    report = Report(
        duration_s=round(metrics.duration_s, 2),
        codec=metrics.codec,
        sample_rate_hz=metrics.sample_rate_hz,
        channels=metrics.channels,
        snr_db=round(metrics.snr_db, 1),
        speech_ratio=round(metrics.speech_ratio, 3),
        clipping_ratio=round(metrics.clipping_ratio, 4),
        loudness_dbfs=round(metrics.loudness_dbfs, 1),
        warnings=tuple(text for applies, text in _WARNINGS if applies(metrics)),
    )
    if report.duration_s < MIN_SECONDS:
        raise SampleRefused(_too_short_message(report), code="too_short")
    is_noisy = report.snr_db < thresholds.snr_db
    is_drowned = is_noisy and report.speech_ratio >= _MIN_SPEECH_RATIO_FOR_NOISE
    if report.speech_ratio < thresholds.speech_ratio and not is_drowned:
        raise SampleRefused(
            f"Speech was found in only {report.speech_ratio:.0%} of the recording. Record one person reading or "
            "telling a story for a minute or more, without long pauses and without music.",
            code="mostly_silence",
        )
    if is_noisy:
        raise SampleRefused(
            "The background is too loud for the voice. Record again in a quiet room, close to the microphone. "
            "Close the windows, and switch off radio, television and fans.",
            code="too_noisy",
        )
    return report


def _too_short_message(report: Report) -> str:
    shown = math.floor(report.duration_s * 10) / 10  # rounded down: 59.97 s must not be shown as 60.0 s
    text = f"The recording is {shown:.1f} seconds long. At least {MIN_SECONDS:.0f} seconds are needed."
    if CONTENT_TYPES[report.codec] == "audio/wav":
        sample_bytes = int("".join(filter(str.isdigit, report.codec))) // 8
        # If a minute in this format exceeds the size limit (as CD-quality stereo does), recording longer does not help.
        if report.sample_rate_hz * report.channels * sample_bytes * MIN_SECONDS > MAX_BYTES:
            text += f" A minute in this format does not fit into 10 MB. {_SMALLER_FILE_HINT}"
    return text


def _is_noise_audible(metrics: AudioMetrics) -> bool:
    return metrics.loudness_dbfs - metrics.snr_db > _AUDIBLE_NOISE_DBFS


def _has_hum(metrics: AudioMetrics) -> bool:
    return metrics.hum_ratio > _MAX_TONE_RATIO and _is_noise_audible(metrics)


def _has_tones(metrics: AudioMetrics) -> bool:
    return metrics.tone_ratio > _MAX_TONE_RATIO and not _has_hum(metrics) and _is_noise_audible(metrics)


_WARNINGS: tuple[tuple[Callable[[AudioMetrics], bool], str], ...] = (
    (
        _has_hum,
        "There is a hum, as from a fridge or a charger. Record in a quieter room, away from electrical devices.",
    ),
    (_has_tones, "There is music or a steady tone behind the voice. Switch it off and record again if you can."),
    (
        lambda metrics: metrics.snr_db < _MIN_CLEAN_SNR_DB and not _has_hum(metrics) and not _has_tones(metrics),
        "There is noise in the background. A quieter room gives a better voice.",
    ),
    (
        lambda metrics: metrics.clipping_ratio > _MAX_CLIPPING_RATIO or metrics.crest_db < _MIN_CREST_DB,
        "The recording is too loud and sounds distorted. Hold the microphone further away, or lower its level.",
    ),
    (
        lambda metrics: metrics.loudness_dbfs < _MIN_LOUDNESS_DBFS,
        "The voice is very quiet. Speak closer to the microphone, or raise its level.",
    ),
    (
        lambda metrics: metrics.decay_db < _MIN_DECAY_DB and metrics.snr_db > _MIN_SNR_FOR_ECHO_DB,
        "The room echoes. A room with carpet, curtains or a sofa gives a better voice.",
    ),
    (
        lambda metrics: metrics.speech_ratio < _MIN_DENSE_SPEECH_RATIO,
        "There are long pauses. More speech in the same time gives a better voice.",
    ),
    (lambda metrics: metrics.dead_channels > 0, "One of the channels is silent. Recording in mono avoids that."),
    (
        lambda metrics: metrics.channels_cancel,
        "The channels cancel each other out. The voice may sound thin or disappear. Record in mono.",
    ),
    (
        lambda metrics: metrics.sample_rate_hz < _MIN_SAMPLE_RATE_HZ,
        "The recording sounds like a telephone call. A recorder app on a phone or computer gives a better voice.",
    ),
    (
        lambda metrics: metrics.is_cut_short,
        f"Only the first {MAX_DECODED_S // 60} minutes were used. One to two minutes are enough.",
    ),
)
