"""Repairs of a recording that cannot harm the voice: its level, a constant offset, and silence at both ends.

`plan` decides from the measurements which repairs are needed. `conversion` applies them to the file for the provider.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from cloning.samples.formats import MIN_SECONDS
from cloning.samples.measurements import AudioMetrics

MIN_LOUDNESS_DBFS = -35.0  # of the speech; a recording below it is raised
MIN_JUDGED_SPEECH_S = 1.0  # with less speech, the level of the voice cannot be judged

_TARGET_LOUDNESS_DBFS = -20.0
_MAX_PEAK_DBFS = -3.0
_MIN_GAIN_DB, _MAX_GAIN_DB = 3.0, 40.0
_MIN_OFFSET = 0.01  # of full scale
_MAX_SILENCE_S = 3.0  # at one end
_KEPT_SILENCE_S = 0.5


class Repairs(NamedTuple):
    """What is changed. `offset` (full scale 1) is subtracted, then the sound is raised by `gain_db`.

    `start_s` and `end_s` are the seconds of silence that are cut off at both ends.
    """

    offset: float = 0.0
    gain_db: float = 0.0
    start_s: float = 0.0
    end_s: float = 0.0


NO_REPAIRS = Repairs()


def plan(metrics: AudioMetrics) -> Repairs:
    """Returns the repairs that the recording needs."""
    start_s, end_s = (_cut_s(silence_s) for silence_s in (metrics.quiet_start_s, metrics.quiet_end_s))
    spare_s = max(0.0, metrics.duration_s - MIN_SECONDS)  # the provider gets at least a minute
    if start_s + end_s > spare_s:
        end_s = min(end_s, spare_s)
        start_s = min(start_s, spare_s - end_s)
    return Repairs(
        offset=metrics.offset if abs(metrics.offset) >= _MIN_OFFSET else 0.0,
        gain_db=_gain_db(metrics),
        start_s=start_s,
        end_s=end_s,
    )


def _cut_s(silence_s: float) -> float:
    return silence_s - _KEPT_SILENCE_S if silence_s > _MAX_SILENCE_S else 0.0


def _gain_db(metrics: AudioMetrics) -> float:
    if metrics.loudness_dbfs >= MIN_LOUDNESS_DBFS or metrics.speech_s < MIN_JUDGED_SPEECH_S:
        return 0.0
    # A loud click limits the gain. Cutting it off could distort the voice.
    wanted = min(_TARGET_LOUDNESS_DBFS - metrics.loudness_dbfs, _MAX_PEAK_DBFS - metrics.peak_dbfs, _MAX_GAIN_DB)
    return wanted if wanted >= _MIN_GAIN_DB else 0.0


def repaired(metrics: AudioMetrics, repairs: Repairs) -> AudioMetrics:
    """Returns the metrics of the recording that the provider gets."""
    return replace(
        metrics,
        duration_s=metrics.duration_s - repairs.start_s - repairs.end_s,
        loudness_dbfs=metrics.loudness_dbfs + repairs.gain_db,
        silent_end_s=max(0.0, metrics.silent_end_s - repairs.end_s),
    )


def sentences(repairs: Repairs) -> Iterator[str]:
    """Yields one sentence in plain words for each repair."""
    if repairs.gain_db:
        yield "The voice was very quiet. Its level was raised."
    if repairs.offset:
        yield "The recording had a constant offset, as from a faulty sound card. It was removed."
    for seconds, place in ((repairs.start_s, "before the first word"), (repairs.end_s, "after the last word")):
        if seconds >= 1:
            yield f"{seconds:.0f} seconds of silence {place} were cut off."
