"""Decides whether a recording can become a voice clone, and explains the decision in plain words.

Pure: the input is the metrics that `worker` has measured. The error codes are part of the REST API.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from cloning.samples import repair
from cloning.samples.formats import MAX_BYTES, MAX_DECODED_S, MIN_SECONDS, PCM_CODECS
from cloning.samples.measurements import AudioMetrics
from voicecare.core.errors import VoicecareError

__all__ = [
    "MAX_BYTES",
    "MIN_SECONDS",
    "InspectionFailed",
    "Problem",
    "Report",
    "SampleRefused",
    "Thresholds",
    "evaluate",
    "unreadable_error",
]

_MIN_MEASURED_S = 5.0  # a shorter recording says too little about the room

_MIN_CLEAN_SNR_DB = 23.0
_MIN_DENSE_SPEECH_RATIO = 0.6
_MIN_SPEECH_RATIO = 0.4  # of a recording that is too short for the required seconds of speech
_MIN_SPEECH_RATIO_FOR_NOISE = 0.1  # with less speech than this, noise is not the reason for the refusal
_MAX_SILENT_END_S = 10.0
_MAX_CLIPPING_RATIO = 0.001
_MAX_USABLE_CLIPPING_RATIO = 0.1
# Clean speech has a crest of 17 to 20 dB. MP3 hides the flat peaks of clipped speech, but not the low crest.
_MIN_CREST_DB = 11.0
_MAX_TONE_RATIO = 0.5
_AUDIBLE_NOISE_DBFS = -65.0
_MIN_DECAY_DB = 12.5
_MIN_SNR_FOR_ECHO_DB = 15.0  # with a lower SNR, noise limits the decay and says nothing about echo
_MIN_SAMPLE_RATE_HZ = 16000
# Other voices: the first value of each pair is a warning, the second a refusal. A false refusal is the worse error.
_VOICE_SIMILARITY = (0.82, 0.78)
_MIN_MINORITY_RATIO = 0.15  # fewer voiceprints than this are a cough, a laugh or another tone of the same person
_OVERLAP_RATIO = (0.05, 0.08)

_WARNED, _REFUSED = 0, 1
_TWO_VOICES = (
    "More than one person seems to speak in the recording. Record only the person who has consented. Nobody else may "
    "be heard."
)
_TALK = (
    "Somebody else seems to talk behind the voice, for example on a television, a radio or in the room. Switch it off "
    "or go to another room, and record again. Only one person may be heard."
)
_SMALLER_FILE_HINT = "Send it in mono, or saved as MP3 or M4A."
_OTHER_FORMAT_HINT = "Save or export the recording as MP3, M4A or WAV without compression (PCM), and send that file."


class Problem(NamedTuple):
    """A reason why a recording is refused. `code` is part of the REST API. `message` says what to do."""

    code: str
    message: str


class SampleRefused(VoicecareError):
    """The recording cannot become a voice clone.

    `problems` has all reasons, the worst first, so that the next recording can avoid all of them. `warnings` has the
    less serious defects. `code` is the code of the first problem: too_short, too_large, unsupported_format,
    corrupt_audio, other_voice, mostly_silence, too_noisy or distorted. `message` has the texts of all problems and
    warnings.
    """

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[str] = ()) -> None:
        self.problems, self.warnings = tuple(problems), tuple(warnings)
        texts = [*(problem.message for problem in problems), *warnings]
        super().__init__(" ".join(texts), code=self.problems[0].code)

    def as_body(self) -> dict[str, object]:
        problems = [{"code": problem.code, "detail": problem.message} for problem in self.problems]
        return {**super().as_body(), "problems": problems, "warnings": list(self.warnings)}


class InspectionFailed(VoicecareError):
    """The recording could not be inspected, because of a fault of this server, so it may be acceptable.

    REST status 503.
    """

    code = "inspection_failed"
    retryable = True


class Thresholds(NamedTuple):
    """The settings CLONE_MIN_SNR_DB and CLONE_MIN_SPEECH_S (seconds). A recording below one of them is refused."""

    snr_db: float
    speech_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """The measured properties of an accepted recording, rounded for display.

    Ratios are 0..1. `repairs` has sentences about what was repaired, and `warnings` about what could be improved in the
    repaired recording. `noise_removal_helps` is whether the provider should remove the noise. See
    `measurements.AudioMetrics`.
    """

    duration_s: float
    codec: str
    sample_rate_hz: int
    channels: int
    snr_db: float
    speech_ratio: float
    clipping_ratio: float
    loudness_dbfs: float
    noise_removal_helps: bool
    repairs: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Returns the JSON object that is stored with the clone job and returned by the REST path `clones/{id}/`."""
        return {**asdict(self), "repairs": list(self.repairs), "warnings": list(self.warnings)}


_UNREADABLE_ERRORS = {
    "empty": ("corrupt_audio", "The file is empty. Please choose the recording again."),
    "too_large": (
        "too_large",
        f"The file is larger than {MAX_BYTES // 1_000_000} MB. One to two minutes are enough: cut off the rest. If the "
        "recording is not longer, it is not compressed. Then send it in mono, or saved as MP3 or M4A.",
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
        "The file is incomplete, and less than a minute of it can be played. Send it again. If that does not help, the "
        "recording itself was interrupted. Then record again.",
    ),
    "damaged": (
        "corrupt_audio",
        "The file is damaged and cannot be played to its end. Export the recording again, and send the new file.",
    ),
}


def unreadable_error(reason: str) -> SampleRefused:
    """Returns the error for a file that cannot be decoded. `reason` is that of `formats.UnreadableAudio`."""
    return SampleRefused([Problem(*_UNREADABLE_ERRORS[reason])])


def evaluate(metrics: AudioMetrics, thresholds: Thresholds) -> Report:
    """Returns the report of an acceptable recording. Raises SampleRefused for any other recording."""
    repairs = repair.plan(metrics)
    repaired = repair.repaired(metrics, repairs)
    report = Report(
        duration_s=round(metrics.duration_s, 2),
        codec=metrics.codec,
        sample_rate_hz=metrics.sample_rate_hz,
        channels=metrics.channels,
        snr_db=round(metrics.snr_db, 1),
        speech_ratio=round(metrics.speech_ratio, 3),
        clipping_ratio=round(metrics.clipping_ratio, 4),
        loudness_dbfs=round(metrics.loudness_dbfs, 1),
        noise_removal_helps=_has_hum(repaired) or _has_tones(repaired) or _has_noise(repaired),
        repairs=tuple(repair.sentences(repairs)),
        warnings=tuple(text for applies, text in _WARNINGS if applies(repaired)),
    )
    if problems := list(_problems(report, metrics, thresholds)):
        raise SampleRefused(problems, report.warnings)
    return report


def _problems(report: Report, metrics: AudioMetrics, thresholds: Thresholds) -> Iterator[Problem]:
    """Yields the reasons to refuse the recording, the worst first.

    A recording that is too short is the worst, because it must be repeated even in a quieter room.
    """
    if report.duration_s < MIN_SECONDS:
        yield Problem("too_short", _too_short_message(report))
    if report.duration_s < _MIN_MEASURED_S:
        return
    if _has_two_voices(metrics, _REFUSED):
        yield Problem("other_voice", _TWO_VOICES)
    is_noisy = round(metrics.snr_db, 1) < thresholds.snr_db
    is_drowned = is_noisy and metrics.speech_ratio >= _MIN_SPEECH_RATIO_FOR_NOISE
    required_s = min(thresholds.speech_s, metrics.duration_s * _MIN_SPEECH_RATIO)
    if metrics.speech_s < required_s and not is_drowned:
        yield Problem(
            "mostly_silence",
            f"Only {math.floor(metrics.speech_s)} seconds of speech were found in the recording. At least "
            f"{thresholds.speech_s:.0f} are needed. Record one person who reads or tells a story for a minute or more, "
            "without music.",
        )
    elif is_noisy:
        yield Problem(
            "too_noisy",
            "The background is too loud for the voice. Record again in a quiet room, close to the microphone. "
            "Close the windows, and switch off radio, television and fans.",
        )
    if _has_talk(metrics, _REFUSED):
        yield Problem("other_voice", _TALK)
    if metrics.clipping_ratio > _MAX_USABLE_CLIPPING_RATIO:
        yield Problem(
            "distorted",
            "The recording is far too loud, so the voice is distorted. Hold the microphone further away, or lower its "
            "level, and record again.",
        )


def _too_short_message(report: Report) -> str:
    shown = math.floor(report.duration_s * 10) / 10  # rounded down: 59.97 s must not be shown as 60.0 s
    text = f"The recording is {shown:.1f} seconds long. At least {MIN_SECONDS:.0f} seconds are needed."
    if report.codec in PCM_CODECS:
        sample_bytes = int("".join(filter(str.isdigit, report.codec))) // 8
        # If a minute in this format exceeds the size limit (as CD-quality stereo does), recording longer does not help.
        if report.sample_rate_hz * report.channels * sample_bytes * MIN_SECONDS > MAX_BYTES:
            text += f" A minute in this format does not fit into 10 MB. {_SMALLER_FILE_HINT}"
    return text


def _has_two_voices(metrics: AudioMetrics, level: int) -> bool:
    is_different = metrics.voice_similarity < _VOICE_SIMILARITY[level]
    return is_different and metrics.minority_voice_ratio >= _MIN_MINORITY_RATIO


def _has_talk(metrics: AudioMetrics, level: int) -> bool:
    echo_factor = 2 if metrics.decay_db < _MIN_DECAY_DB else 1  # an echo overlaps with the words that follow
    return metrics.overlap_ratio >= _OVERLAP_RATIO[level] * echo_factor


def _is_noise_audible(metrics: AudioMetrics) -> bool:
    return metrics.loudness_dbfs - metrics.snr_db > _AUDIBLE_NOISE_DBFS


def _has_speech(metrics: AudioMetrics) -> bool:
    return metrics.speech_s >= repair.MIN_JUDGED_SPEECH_S


def _has_hum(metrics: AudioMetrics) -> bool:
    return metrics.hum_ratio > _MAX_TONE_RATIO and _is_noise_audible(metrics)


def _has_tones(metrics: AudioMetrics) -> bool:
    return metrics.tone_ratio > _MAX_TONE_RATIO and not _has_hum(metrics) and _is_noise_audible(metrics)


def _has_noise(metrics: AudioMetrics) -> bool:
    is_noisy = metrics.snr_db < _MIN_CLEAN_SNR_DB and not _has_hum(metrics) and not _has_tones(metrics)
    return is_noisy and (_has_speech(metrics) or _is_noise_audible(metrics))


_WARNINGS: tuple[tuple[Callable[[AudioMetrics], bool], str], ...] = (
    (
        lambda metrics: _has_two_voices(metrics, _WARNED) and not _has_two_voices(metrics, _REFUSED),
        "There may be a second person in the recording. Listen to it: only the person who has consented may be heard.",
    ),
    (
        lambda metrics: _has_talk(metrics, _WARNED) and not _has_talk(metrics, _REFUSED),
        "There may be talk behind the voice, such as a television. If so, switch it off and record again.",
    ),
    (
        _has_hum,
        "There is a hum, as from a fridge or a charger. Record in a quieter room, away from electrical devices.",
    ),
    (_has_tones, "There is music or a steady tone behind the voice. Switch it off and record again if you can."),
    (_has_noise, "There is noise in the background. A quieter room gives a better voice."),
    (
        lambda metrics: (
            _has_speech(metrics)
            and metrics.clipping_ratio <= _MAX_USABLE_CLIPPING_RATIO
            and (metrics.clipping_ratio > _MAX_CLIPPING_RATIO or metrics.crest_db < _MIN_CREST_DB)
        ),
        "The recording is too loud and sounds distorted. Hold the microphone further away, or lower its level.",
    ),
    (
        lambda metrics: _has_speech(metrics) and metrics.loudness_dbfs < repair.MIN_LOUDNESS_DBFS,
        "The voice is very quiet. Speak closer to the microphone, or raise its level.",
    ),
    (
        lambda metrics: metrics.decay_db < _MIN_DECAY_DB and metrics.snr_db > _MIN_SNR_FOR_ECHO_DB,
        "The room echoes. A room with carpet, curtains or a sofa gives a better voice.",
    ),
    (
        lambda metrics: _has_speech(metrics) and metrics.silent_end_s > _MAX_SILENT_END_S,
        "The recording continues after the last word. You can cut off the end.",
    ),
    (
        lambda metrics: (
            _has_speech(metrics)
            and metrics.speech_s < (metrics.duration_s - metrics.silent_end_s) * _MIN_DENSE_SPEECH_RATIO
        ),
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
        lambda metrics: metrics.is_incomplete,
        "The end of the file is missing. Only the part before it was checked and can be used.",
    ),
    (
        lambda metrics: metrics.is_cut_short,
        f"Only the first {MAX_DECODED_S // 60} minutes were used. One to two minutes are enough.",
    ),
)
