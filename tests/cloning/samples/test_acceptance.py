"""The rules of acceptance as tables, and the measurements that they use."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cloning.samples.acceptance import CONTENT_TYPES, Report, SampleRefused, Thresholds, evaluate, unreadable_error
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

THRESHOLDS = Thresholds(snr_db=11.0, speech_ratio=0.4)
GOOD = AudioMetrics(
    codec="mp3",
    sample_rate_hz=44100,
    channels=1,
    duration_s=90.0,
    is_cut_short=False,
    clipping_ratio=0.0,
    dead_channels=0,
    channels_cancel=False,
    speech_ratio=0.8,
    snr_db=35.0,
    loudness_dbfs=-20.0,
    crest_db=18.0,
    tone_ratio=0.0,
    hum_ratio=0.0,
    decay_db=25.0,
)


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
        ({"speech_ratio": 0.5}, "pauses"),
        ({"channels": 2, "dead_channels": 1}, "silent"),
        ({"channels": 2, "channels_cancel": True}, "cancel"),
        ({"sample_rate_hz": 8000}, "telephone"),
        ({"duration_s": 900.0, "is_cut_short": True}, "15 minutes"),
    ],
)
def test_a_flaw_has_one_warning_in_plain_words(changes: dict[str, object], words: str):
    (warning,) = evaluated(**changes).warnings
    assert words in warning
    assert not re.search(r"dB|Hz|SNR|codec|ratio", warning)


@pytest.mark.parametrize(
    "changes",
    [
        {"snr_db": 23.0},
        {"tone_ratio": 0.9, "hum_ratio": 0.9, "snr_db": 50.0},  # the hum is inaudible
        {"decay_db": 12.0, "snr_db": 14.0},
        {"sample_rate_hz": 16000},
        {"duration_s": 60.0},
    ],
)
def test_a_small_flaw_has_no_warning(changes: dict[str, object]):
    assert not [text for text in evaluated(**changes).warnings if "noise in the background" not in text]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"duration_s": 59.9}, "too_short"),
        ({"duration_s": 0.0}, "too_short"),
        ({"duration_s": 20.0, "speech_ratio": 0.0, "snr_db": -5.0}, "too_short"),
        ({"snr_db": 10.9}, "too_noisy"),
        ({"snr_db": 5.0, "speech_ratio": 0.3}, "too_noisy"),
        ({"speech_ratio": 0.39}, "mostly_silence"),
        ({"speech_ratio": 0.0, "snr_db": -4.0}, "mostly_silence"),
    ],
)
def test_an_unsuitable_recording_is_refused(changes: dict[str, object], code: str):
    refused = refusal(**changes)
    assert refused.as_body() == {"detail": refused.message, "code": code}


def test_the_duration_shown_is_never_rounded_up():
    assert "59.9 seconds" in refusal(duration_s=59.98).message


@pytest.mark.parametrize(
    ("codec", "channels", "has_hint"),
    [("pcm_s16le", 2, True), ("pcm_f32le", 1, True), ("pcm_s16le", 1, False), ("mp3", 2, False)],
)
def test_the_refusal_of_a_bulky_format_suggests_a_smaller_one(codec: str, channels: int, has_hint: bool):
    message = refusal(duration_s=56.7, codec=codec, channels=channels).message
    assert ("mono" in message and "MP3" in message and "M4A" in message) is has_hint


def test_the_thresholds_are_parameters():
    assert evaluate(replace(GOOD, snr_db=3.0, speech_ratio=0.1), Thresholds(2.0, 0.1))
    with pytest.raises(SampleRefused):
        evaluate(GOOD, Thresholds(40.0, 0.1))


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


def test_the_content_type_depends_on_the_codec():
    assert CONTENT_TYPES["mp3"] == "audio/mpeg"
    assert CONTENT_TYPES["pcm_s24le"] == "audio/wav"
    assert CONTENT_TYPES["aac"] == CONTENT_TYPES["alac"] == "audio/mp4"


# Measurements of real sounds


def metrics_of(sound: Sound, codec: str = "pcm_s16le", rate: int = RATE) -> AudioMetrics:
    """The metrics of a short sound, with a duration that is long enough to be accepted."""
    return replace(analyze(decode(encoded(sound, codec, rate, bit_rate=96_000))), duration_s=60.0)


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
        assert ["noise in the background" in text for text in warnings] == [True] * (verdict == "warned")


def test_clean_speech_has_no_warnings():
    assert evaluate(metrics_of(clean_speech()), THRESHOLDS).warnings == ()
    assert evaluate(metrics_of(clean_speech("f2"), "libmp3lame"), THRESHOLDS).warnings == ()
    assert evaluate(metrics_of(clean_speech("m3"), "aac"), THRESHOLDS).warnings == ()


FLAWS: dict[str, tuple[Callable[[Sound], Sound], str]] = {
    "mains of 50 Hz": (lambda sound: mixed(sound, hum(len(sound), 50), 28), "hum"),
    "mains of 60 Hz": (lambda sound: mixed(sound, hum(len(sound), 60), 20), "hum"),
    "music": (lambda sound: mixed(sound, chord(len(sound)), 25), "music"),
    "too loud": (lambda sound: np.clip(sound * 8, -1, 1), "distorted"),
    "too loud, then turned down": (lambda sound: np.clip(sound * 8, -1, 1) * 0.4, "distorted"),
    "far away": (lambda sound: sound * 0.1, "quiet"),
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


def test_the_windows_cover_the_whole_recording():
    """Three minutes that start with speech and end with silence."""
    sound = np.concatenate([speech(80, rate=16000), np.zeros(100 * 16000)])
    assert metrics_of(sound, rate=16000).speech_ratio == pytest.approx(80 / 180, abs=0.1)


@pytest.mark.parametrize("samples", [1, 100, 513, 3000])
def test_a_very_short_recording_is_refused_as_too_short(samples: int):
    metrics = analyze(decode(encoded(0.1 * white(samples), "pcm_s16le", 16000)))
    with pytest.raises(SampleRefused) as refused:
        evaluate(metrics, THRESHOLDS)
    assert refused.value.code == "too_short"
