"""Finds voices of other people in a recording: a second speaker, or a television or talk in the background.

The consent names one person, so no other voice may get into the clone. A person who reads expressively, or moves while
speaking, also sounds like two people to some degree. Therefore the results are numbers, and `acceptance` decides which
of them lead to a warning or a refusal. docs/operation.md has the error rates that were measured.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloning.samples.analysis import networks
from cloning.samples.analysis.speech import CHUNK_SAMPLES
from cloning.samples.analysis.voiceprints import RATE, WINDOW_SAMPLES, voiceprints

_MIN_SPEECH = 0.5  # probability of speech in a chunk, and part of a window that is speech
_STEP_SAMPLES = WINDOW_SAMPLES * 3 // 4
_MIN_WINDOWS, _MAX_WINDOWS = 6, 60
_ROUNDS = 10  # of the assignment of voiceprints to two groups; it has settled by then

_SEGMENT_SAMPLES = 10 * RATE  # the length that the segmentation network was trained with
_SEGMENTS_AT_ONCE = 2  # limits the memory for intermediate results
_FIRST_OVERLAP = 4  # its classes: nobody, three for one person, then three for two people at the same time

Floats = NDArray[np.floating]
Sounds = list[NDArray[np.float32]]


class TwoVoices(NamedTuple):
    """How much the voiceprints of one recording differ, if they are divided into the two most different groups.

    `similarity` is the cosine of the angle between the means of the groups: mostly above 0.85 for one voice, and below
    0.77 for two in turn. `minority_ratio` is the part (0..0.5) of the voiceprints that is in the smaller group.
    """

    similarity: float
    minority_ratio: float


ONE_VOICE = TwoVoices(1.0, 0.0)


def compare_voices(windows: Sounds, speech_by_window: list[Floats]) -> TwoVoices:
    """Compares the voiceprints of different times in the recording, to detect a second speaker.

    `windows` are sections of mono sound at 16 kHz. `speech_by_window` has the probability of speech of each chunk of
    each window. Returns ONE_VOICE if there is too little speech for a comparison.
    """
    spoken = [part for sound, speech in zip(windows, speech_by_window, strict=True) for part in _spoken(sound, speech)]
    if len(spoken) < _MIN_WINDOWS:
        return ONE_VOICE
    chosen = np.linspace(0, len(spoken) - 1, min(len(spoken), _MAX_WINDOWS)).astype(int)
    vectors = voiceprints(np.stack([spoken[index] for index in chosen]))
    deviations = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(deviations, full_matrices=False)
    # The groups start as both ends of the main axis. In the middle are windows that contain both voices.
    order = np.argsort(deviations @ axes[0])
    quarter = max(3, len(vectors) // 4)
    centers = [vectors[part].mean(axis=0) for part in (order[:quarter], order[-quarter:])]
    for _ in range(_ROUNDS):
        is_second = np.greater(vectors @ _unit(centers[1]), vectors @ _unit(centers[0]))
        if is_second.all() or not is_second.any():
            return ONE_VOICE
        centers = [vectors[~is_second].mean(axis=0), vectors[is_second].mean(axis=0)]
    minority_ratio = float(min(is_second.mean(), 1 - is_second.mean()))
    return TwoVoices(float(_unit(centers[0]) @ _unit(centers[1])), minority_ratio)


def _spoken(sound: NDArray[np.float32], probabilities: Floats) -> Iterator[NDArray[np.float32]]:
    """Yields the parts of WINDOW_SAMPLES that are mostly speech. They overlap."""
    is_speech = probabilities > _MIN_SPEECH
    for start in range(0, len(sound) - WINDOW_SAMPLES + 1, _STEP_SAMPLES):
        chunks = is_speech[start // CHUNK_SAMPLES : (start + WINDOW_SAMPLES) // CHUNK_SAMPLES]
        if len(chunks) and chunks.mean() > _MIN_SPEECH:
            yield sound[start : start + WINDOW_SAMPLES]


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))


def overlap_ratio(windows: Sounds) -> float:
    """Returns the part (0..1) of the speech during which two people speak at the same time. 0 without any speech.

    Below 0.02 if one person speaks or several in turn. Above 0.1 if somebody talks behind the voice, also 10 dB below
    it. The network is pyannote segmentation 3.0 (https://arxiv.org/abs/2310.13025).
    """
    network = networks.load("segmentation")
    speech = overlap = 0
    segments = [segment for sound in windows for segment in _segments(sound)]
    for begin in range(0, len(segments), _SEGMENTS_AT_ONCE):
        batch = np.stack(segments[begin : begin + _SEGMENTS_AT_ONCE])[:, None]
        classes = np.argmax(network.run(None, {"sound": batch})[0], axis=2)
        speech += int(np.sum(classes > 0))
        overlap += int(np.sum(classes >= _FIRST_OVERLAP))
    return overlap / speech if speech else 0.0


def _segments(sound: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yields parts of _SEGMENT_SAMPLES. The last one overlaps the one before, or has silence at its end."""
    if len(sound) <= _SEGMENT_SAMPLES:
        yield np.pad(sound, (0, _SEGMENT_SAMPLES - len(sound)))
        return
    for start in range(0, len(sound) - _SEGMENT_SAMPLES // 2, _SEGMENT_SAMPLES):
        end = min(start + _SEGMENT_SAMPLES, len(sound))
        yield sound[end - _SEGMENT_SAMPLES : end]
