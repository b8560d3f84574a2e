"""The rules of acceptance as tables, and the measurements that they use."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cloning.samples.acceptance import Report, SampleRefused, Thresholds, evaluate, unreadable_error
from cloning.samples.decoding import decode
from cloning.samples.measurements import AudioMetrics
from cloning.samples.quality import analyze
from tests.cloning.samples.recordings import (
    RATE,
    Sound,
    babble,
    chord,
    encoded,
    hum,
    in_a_hall,
    mixed,
    pink,
    speech,
    white,
)

THRESHOLDS = Thresholds(snr_db=11.0, speech_s=24.0)
GOOD = AudioMetrics(
    codec="mp3",
    sample_rate_hz=44100,
    channels=1,
    duration_s=90.0,
    is_cut_short=False,
    is_incomplete=False,
    clipping_ratio=0.0,
    dead_channels=0,
    channels_cancel=False,
    offset=0.0,
    peak_dbfs=-2.0,
    speech_ratio=0.8,
    speech_s=72.0,
    silent_end_s=0.0,
    quiet_start_s=0.0,
    quiet_end_s=0.0,
    snr_db=35.0,
    loudness_dbfs=-20.0,
    crest_db=18.0,
    tone_ratio=0.0,
    hum_ratio=0.0,
    decay_db=25.0,
    voice_similarity=0.93,
    minority_voice_ratio=0.4,
    overlap_ratio=0.005,
)

TALK = {"overlap_ratio": 0.3}


def evaluated(**changes) -> Report:
    return evaluate(replace(GOOD, **changes), THRESHOLDS)


def refusal(**changes) -> SampleRefused:
    with pytest.raises(SampleRefused) as refused:
        evaluated(**changes)
    return refused.value


# The rules


def test_a_good_recording_has_a_report_without_warnings():
    assert evaluated(duration_s=90.004, snr_db=35.04, speech_ratio=0.80004).as_json() == {
        "duration_s": 90.0,
        "codec": "mp3",
        "sample_rate_hz": 44100,
        "channels": 1,
        "snr_db": 35.0,
        "speech_ratio": 0.8,
        "clipping_ratio": 0.0,
        "loudness_dbfs": -20.0,
        "noise_removal_helps": False,
        "repairs": [],
        "warnings": [],
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"snr_db": 22.9}, "noise"),
        ({"snr_db": 22.9, "tone_ratio": 0.9, "hum_ratio": 0.9}, "hum"),
        ({"tone_ratio": 0.9, "hum_ratio": 0.9}, "hum"),
        ({"tone_ratio": 0.9, "hum_ratio": 0.1}, "music"),
        ({"clipping_ratio": 0.002}, "distorted"),
        ({"crest_db": 10.9}, "distorted"),
        ({"loudness_dbfs": -35.1}, "quiet"),
        ({"decay_db": 12.0}, "echo"),
        ({"speech_s": 45.0}, "pauses"),
        ({"speech_s": 45.0, "silent_end_s": 30.0}, "cut off the end"),
        ({"voice_similarity": 0.81}, "second person"),
        ({"overlap_ratio": 0.06}, "talk"),
        ({"channels": 2, "dead_channels": 1}, "silent"),
        ({"channels": 2, "channels_cancel": True}, "cancel"),
        ({"sample_rate_hz": 8000}, "telephone"),
        ({"is_incomplete": True}, "end of the file is missing"),
        ({"duration_s": 900.0, "speech_s": 720.0, "is_cut_short": True}, "15 minutes"),
    ],
)
def test_a_flaw_has_one_warning_in_plain_words(changes: dict[str, object], words: str):
    (warning,) = evaluated(**changes).warnings
    assert words in warning
    assert not re.search(r"dB|Hz|SNR|codec|ratio", warning)


@pytest.mark.parametrize(
    ("changes", "helps"),
    [
        ({}, False),
        ({"snr_db": 22.9}, True),
        ({"tone_ratio": 0.9, "hum_ratio": 0.9}, True),
        ({"tone_ratio": 0.9, "hum_ratio": 0.1}, True),
        ({"tone_ratio": 0.9, "hum_ratio": 0.9, "snr_db": 50.0}, False),  # the hum is inaudible
        ({"overlap_ratio": 0.06}, False),  # it does not remove voices
        ({"decay_db": 12.0}, False),
    ],
)
def test_noise_removal_is_offered_for_noise_only(changes: dict[str, object], helps: bool):
    assert evaluated(**changes).noise_removal_helps is helps


@pytest.mark.parametrize(
    "changes",
    [
        {"snr_db": 23.0},
        {"tone_ratio": 0.9, "hum_ratio": 0.9, "snr_db": 50.0},  # the hum is inaudible
        {"decay_db": 12.0, "snr_db": 14.0},
        {"sample_rate_hz": 16000},
        {"duration_s": 60.0},
        {"voice_similarity": 0.7, "minority_voice_ratio": 0.1},  # a cough, a laugh, or another tone
        {"overlap_ratio": 0.04},
        {"overlap_ratio": 0.09, "decay_db": 12.0, "snr_db": 14.0},  # as the echo of the voice itself
    ],
)
def test_a_small_flaw_has_no_warning(changes: dict[str, object]):
    assert not [text for text in evaluated(**changes).warnings if "noise in the background" not in text]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"duration_s": 59.9}, "too_short"),
        ({"duration_s": 0.0}, "too_short"),
        ({"duration_s": 20.0, "speech_s": 0.0, "speech_ratio": 0.0, "snr_db": -5.0}, "too_short"),
        ({"voice_similarity": 0.7}, "other_voice"),
        ({"clipping_ratio": 0.3}, "distorted"),
        (TALK, "other_voice"),
        ({**TALK, "decay_db": 12.0}, "other_voice"),
        ({"snr_db": 10.9}, "too_noisy"),
        ({"snr_db": 5.0, "speech_ratio": 0.2, "speech_s": 18.0}, "too_noisy"),
        ({"speech_s": 23.9}, "mostly_silence"),
        ({"speech_s": 0.0, "speech_ratio": 0.0, "snr_db": -4.0}, "mostly_silence"),
    ],
)
def test_an_unsuitable_recording_is_refused(changes: dict[str, object], code: str):
    refused = refusal(**changes)
    assert refused.code == code
    assert refused.as_body().items() >= {"detail": refused.message, "code": code}.items()


def test_a_refusal_has_all_problems_and_warnings():
    refused = refusal(duration_s=50.0, snr_db=5.0, hum_ratio=0.9, clipping_ratio=0.05)
    assert [problem.code for problem in refused.problems] == ["too_short", "too_noisy"]
    words = ("50.0 seconds", "background is too loud", "hum", "distorted")
    assert [word for word in words if word in refused.message] == list(words)
    assert refused.as_body() == {
        "detail": refused.message,
        "code": "too_short",
        "problems": [{"code": problem.code, "detail": problem.message} for problem in refused.problems],
        "warnings": list(refused.warnings),
    }
    assert len(refused.warnings) == 2


def test_distortion_is_either_a_problem_or_a_warning():
    refused = refusal(clipping_ratio=0.3, crest_db=5.0)
    assert ([problem.code for problem in refused.problems], refused.warnings) == (["distorted"], ())


def test_a_recording_of_seconds_is_only_too_short():
    """Its other measurements say too little about the room."""
    assert [problem.code for problem in refusal(duration_s=4.0, speech_s=0.0, snr_db=-5.0).problems] == ["too_short"]


def test_the_duration_shown_is_never_rounded_up():
    assert "59.9 seconds" in refusal(duration_s=59.98).message


@pytest.mark.parametrize(
    ("codec", "channels", "has_hint"),
    [("pcm_s16le", 2, True), ("pcm_f32le", 1, True), ("pcm_s16le", 1, False), ("mp3", 2, False)],
)
def test_the_refusal_of_a_bulky_format_suggests_a_smaller_one(codec: str, channels: int, has_hint: bool):
    message = refusal(duration_s=56.7, codec=codec, channels=channels).message
    assert ("mono" in message and "MP3" in message and "M4A" in message) is has_hint


def test_the_seconds_of_speech_shown_are_never_rounded_up():
    assert "Only 23 seconds" in refusal(speech_s=23.9).message


def test_a_forgotten_stop_button_or_long_pauses_refuse_nobody():
    """The provider needs seconds of speech, and not a share."""
    assert evaluated(duration_s=280.0, speech_s=70.0, speech_ratio=0.25, silent_end_s=150.0)


def test_the_thresholds_are_parameters():
    assert evaluate(replace(GOOD, snr_db=3.0, speech_s=6.0), Thresholds(2.0, 6.0))
    with pytest.raises(SampleRefused):
        evaluate(GOOD, Thresholds(40.0, 6.0))


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("empty", "corrupt_audio"),
        ("too_large", "too_large"),
        ("unknown", "unsupported_format"),
        ("video", "unsupported_format"),
        ("odd_shape", "unsupported_format"),
        ("truncated", "corrupt_audio"),
        ("damaged", "corrupt_audio"),
    ],
)
def test_an_unreadable_file_is_refused_with_advice(reason: str, code: str):
    assert unreadable_error(reason).code == code
    assert len(unreadable_error(reason).message) > 40


# Measurements of real sounds


def metrics_of(sound: Sound, codec: str = "pcm_s16le", rate: int = RATE) -> AudioMetrics:
    """The metrics of a short sound, with a duration that is long enough to be accepted."""
    metrics = analyze(decode(encoded(sound, codec, rate, bit_rate=96_000)))
    scale = 60.0 / metrics.duration_s
    times = {"speech_s": metrics.speech_s * scale, "silent_end_s": metrics.silent_end_s * scale}
    return replace(metrics, duration_s=60.0, **times)


SECONDS = 12
NOISES: dict[str, Callable[[int, int], Sound]] = {"white": white, "pink": pink, "babble": babble}


@cache
def clean_speech(variant: str = "", seconds: int = SECONDS) -> Sound:
    return speech(seconds, variant=variant)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("snr_db", "verdict"), [(30, "accepted"), (15, "warned"), (5, "too_noisy")])
def test_noise_is_accepted_warned_about_or_refused_by_its_level(noise: str, snr_db: int, verdict: str, seed: int):
    speech_alone = clean_speech(["", "f2"][seed - 1])
    metrics = metrics_of(mixed(speech_alone, NOISES[noise](len(speech_alone), seed), snr_db))
    # Half of the power of white noise is above the analyzed frequencies, so the tolerance is large.
    assert metrics.snr_db == pytest.approx(snr_db, abs=5.5)
    if verdict == "too_noisy":
        with pytest.raises(SampleRefused) as refused:
            evaluate(metrics, THRESHOLDS)
        assert refused.value.code == verdict
    else:
        warnings = evaluate(metrics, THRESHOLDS).warnings
        assert any("noise in the background" in text for text in warnings) is (verdict == "warned")


def test_clean_speech_has_no_warnings():
    assert evaluate(metrics_of(clean_speech()), THRESHOLDS).warnings == ()
    assert evaluate(metrics_of(clean_speech("f2"), "libmp3lame"), THRESHOLDS).warnings == ()
    assert evaluate(metrics_of(clean_speech("m3"), "aac"), THRESHOLDS).warnings == ()


def with_click(sound: Sound) -> Sound:
    return np.where(np.arange(len(sound)) == 5 * RATE, 0.9, sound)


FLAWS: dict[str, tuple[Callable[[Sound], Sound], str]] = {
    "mains of 50 Hz": (lambda sound: mixed(sound, hum(len(sound), 50), 28), "hum"),
    "mains of 60 Hz": (lambda sound: mixed(sound, hum(len(sound), 60), 20), "hum"),
    "music": (lambda sound: mixed(sound, chord(len(sound)), 25), "music"),
    "too loud": (lambda sound: np.clip(sound * 4, -1, 1), "distorted"),
    "too loud, then turned down": (lambda sound: np.clip(sound * 8, -1, 1) * 0.4, "distorted"),
    "far away, with a click": (lambda sound: with_click(sound * 0.05), "quiet"),
    "hall": (lambda sound: in_a_hall(sound, 0.8), "echoes"),
    "pauses": (lambda sound: sound * (np.arange(len(sound)) // (2 * RATE) % 2), "pauses"),
    "dead channel": (lambda sound: np.stack([sound, 0 * sound]), "channels is silent"),
    "mirrored channels": (lambda sound: np.stack([sound, -sound]), "cancel"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_of_the_sound_has_a_warning(flaw: str):
    make, words = FLAWS[flaw]
    warnings = evaluate(metrics_of(make(clean_speech("f2", 20))), THRESHOLDS).warnings
    assert [text for text in warnings if words in text]
    assert len(warnings) <= 2


def test_distortion_is_detected_in_an_mp3():
    """MP3 filters hide flat peaks, but the crest factor stays low."""
    warnings = evaluate(metrics_of(np.clip(clean_speech() * 8, -1, 1), "libmp3lame"), THRESHOLDS).warnings
    assert [text for text in warnings if "loud" in text]


def test_telephone_sound_has_a_warning():
    metrics = metrics_of(speech(SECONDS, rate=8000), rate=8000)
    assert ["telephone" in text for text in evaluate(metrics, THRESHOLDS).warnings] == [True]


SPEECHLESS: dict[str, Callable[[int], Sound]] = {
    "silence": np.zeros,
    "hum": lambda count: 0.1 * hum(count),
    "chords": lambda count: 0.1 * chord(count),
    "white noise": lambda count: 0.05 * white(count),
    "a beep": lambda count: 0.1 * np.sin(np.arange(count) * 0.14),
    "knocking": lambda count: 0.5 * (np.arange(count) % (RATE // 2) < 200),
    "a sentence in silence": lambda count: np.concatenate(
        [clean_speech()[: count // 10], np.zeros(count - count // 10)]
    ),
}


@pytest.mark.parametrize("kind", SPEECHLESS)
def test_a_recording_with_little_speech_is_refused(kind: str):
    with pytest.raises(SampleRefused) as refused:
        evaluate(metrics_of(SPEECHLESS[kind](SECONDS // 2 * RATE)), THRESHOLDS)
    assert refused.value.code == "mostly_silence"


def test_silence_is_not_called_noisy_loud_or_quiet():
    with pytest.raises(SampleRefused) as refused:
        evaluate(metrics_of(np.zeros(SECONDS // 2 * RATE)), THRESHOLDS)
    assert [problem.code for problem in refused.value.problems] == ["mostly_silence"]
    assert refused.value.warnings == ()


@pytest.mark.parametrize("silence_s", [100, 300])
def test_the_whole_recording_counts(silence_s: int):
    """Speech, then silence. The longer recording is analyzed in windows."""
    metrics = analyze(
        decode(encoded(np.concatenate([speech(80, rate=8000), np.zeros(silence_s * 8000)]), "pcm_s16le", 8000))
    )
    assert metrics.speech_s == pytest.approx(80 * 0.94, abs=8)
    assert metrics.speech_ratio == pytest.approx(metrics.speech_s / (80 + silence_s), abs=0.01)
    assert metrics.silent_end_s == pytest.approx(silence_s, abs=11)


@pytest.mark.parametrize("samples", [1, 100, 513, 3000])
def test_a_very_short_recording_is_refused_as_too_short(samples: int):
    metrics = analyze(decode(encoded(0.1 * white(samples), "pcm_s16le", 16000)))
    with pytest.raises(SampleRefused) as refused:
        evaluate(metrics, THRESHOLDS)
    assert refused.value.code == "too_short"
