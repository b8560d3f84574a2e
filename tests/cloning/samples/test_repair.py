"""What is repaired: the level, a constant offset, and silence at both ends. The file for the provider is measured."""

from dataclasses import replace

import numpy as np
import pytest

from cloning.samples.acceptance import evaluate
from cloning.samples.conversion import media_type, replacement
from cloning.samples.decoding import decode
from cloning.samples.measurements import AudioMetrics
from cloning.samples.quality import analyze
from cloning.samples.repair import NO_REPAIRS, Repairs, plan
from tests.cloning.samples.recordings import RATE, Sound, encoded, mixed, speech, white
from tests.cloning.samples.test_acceptance import GOOD, THRESHOLDS, with_click

SECONDS = 62


def voice(seconds: float = SECONDS) -> Sound:
    return speech(seconds) + 10 ** (-75 / 20) * white(int(seconds * RATE))


def sent(sound: Sound) -> tuple[AudioMetrics, Repairs, AudioMetrics]:
    """The metrics of a recording, its repairs, and the metrics of the file for the provider."""
    sample = decode(encoded(sound, "pcm_s16le"))
    metrics = analyze(sample)
    repairs = plan(metrics)
    file = replacement(sample, repairs)
    assert media_type(sample, repairs) == ("audio/mpeg" if file else "audio/wav")
    return metrics, repairs, analyze(decode(file)) if file else metrics


def test_a_good_recording_stays_as_it_is():
    metrics, repairs, _ = sent(voice())
    assert repairs == NO_REPAIRS
    assert evaluate(metrics, THRESHOLDS).repairs == ()


@pytest.mark.parametrize("level_db", [-20, -35])
def test_a_quiet_voice_is_raised_without_distortion(level_db: int):
    metrics, _, after = sent(speech(SECONDS) * 10 ** (level_db / 20))
    assert metrics.loudness_dbfs < -38
    assert after.loudness_dbfs == pytest.approx(-21, abs=2.5)
    assert after.clipping_ratio == 0
    report = evaluate(metrics, THRESHOLDS)
    assert report.repairs == ("The voice was very quiet. Its level was raised.",)
    assert report.warnings == ()


def test_a_click_limits_the_level_and_the_warning_stays():
    metrics, _, after = sent(with_click(speech(SECONDS) * 0.05))
    assert after.loudness_dbfs < -35
    assert after.clipping_ratio == 0
    assert any("very quiet" in warning for warning in evaluate(metrics, THRESHOLDS).warnings)


@pytest.mark.parametrize("offset", [0.1, -0.05])
def test_a_constant_offset_is_removed(offset: float):
    metrics, repairs, after = sent(voice() + offset)
    assert repairs.offset == pytest.approx(offset, abs=0.002)
    assert abs(after.offset) < 0.001
    assert after.loudness_dbfs == pytest.approx(metrics.loudness_dbfs, abs=0.5)
    (sentence,) = evaluate(metrics, THRESHOLDS).repairs
    assert "offset" in sentence


def test_silence_at_both_ends_is_cut_off_and_no_word():
    spoken = speech(70)
    sound = np.concatenate([np.zeros(8 * RATE), spoken, np.zeros(15 * RATE)])
    sound = sound + 10 ** (-75 / 20) * white(len(sound))
    metrics, repairs, after = sent(sound)
    assert after.duration_s == pytest.approx(71, abs=0.7)
    assert after.speech_s == pytest.approx(metrics.speech_s, abs=0.7)
    assert repairs.start_s == pytest.approx(7.5, abs=0.3)
    assert repairs.end_s == pytest.approx(14.5, abs=0.7)
    report = evaluate(metrics, THRESHOLDS)
    assert len(report.repairs) == 2
    assert all("silence" in sentence for sentence in report.repairs)
    assert report.warnings == ()


def test_faint_talk_at_an_end_is_not_cut_off():
    sound = np.concatenate([speech(62), 0.03 * speech(10, variant="f2")])
    _, repairs, _ = sent(sound)
    assert repairs.end_s == 0


def test_a_minute_remains():
    cut = plan(replace(GOOD, duration_s=66.0, quiet_start_s=8.0, quiet_end_s=5.0))
    assert 66.0 - cut.start_s - cut.end_s == pytest.approx(60)
    assert plan(replace(GOOD, duration_s=50.0, quiet_end_s=20.0)) == NO_REPAIRS


def test_noise_is_never_raised_without_speech():
    assert plan(replace(GOOD, speech_s=0.5, loudness_dbfs=-60.0, peak_dbfs=-50.0)) == NO_REPAIRS


def test_a_quiet_noisy_recording_keeps_its_noise_and_its_offer():
    """Level and noise are told apart: raising the level helps the level only."""
    metrics, _, after = sent(mixed(speech(SECONDS), white(SECONDS * RATE), 18) * 0.05)
    assert after.snr_db == pytest.approx(metrics.snr_db, abs=1.5)
    report = evaluate(metrics, THRESHOLDS)
    assert report.noise_removal_helps
    assert len(report.repairs) == 1
    assert any("noise" in warning for warning in report.warnings)
