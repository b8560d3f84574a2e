"""How often recordings are judged wrongly: `python -m tests.cloning.samples.corpus [--voices FOLDER] [--quick]`.

The corpus is made here, from voices and from noises of a known level. Without a folder, the voices are synthetic. With
a folder, each of its subfolders is one person with recordings in any format, for example the packages
asterisk-core-sounds-*-g722 of Debian. The recordings of a person are joined with pauses.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from cloning.samples.acceptance import SampleRefused, Thresholds, evaluate
from cloning.samples.decoding import decode
from cloning.samples.quality import analyze
from tests.cloning.samples.recordings import Sound, babble, chord, encoded, hum, in_a_hall, speech, white

RATE = 16000
SECONDS = 62
THRESHOLDS = Thresholds(snr_db=11.0, speech_s=24.0)
SYNTHETIC = (
    ("en", "f2"),
    ("en", "m3"),
    ("de", "f3"),
    ("fr", "m1"),
    ("es", "f4"),
    ("it", "m5"),
    ("pl", "f1"),
    ("sv", "m2"),
)
_TIMES = np.arange(SECONDS * RATE) / RATE
_MIN_CLIP_SAMPLES = RATE // 2


class Case(NamedTuple):
    """`is_good`: whether it must be accepted. `snr_db` is the truth, or None if it is not compared."""

    name: str
    sound: Sound
    is_good: bool
    snr_db: float | None = None


class Result(NamedTuple):
    case: Case
    codes: list[str]
    warnings: list[str]
    snr_db: float


def judged(case: Case) -> Result:
    metrics = analyze(decode(encoded(np.clip(case.sound, -1, 1), "pcm_s16le", RATE)))
    try:
        return Result(case, [], list(evaluate(metrics, THRESHOLDS).warnings), metrics.snr_db)
    except SampleRefused as refused:
        return Result(case, [problem.code for problem in refused.problems], list(refused.warnings), metrics.snr_db)


def cases(voices: dict[str, Sound]) -> Iterator[Case]:
    """Each voice alone, under conditions that nobody hears or that are good enough, with noise, and with others."""
    names = list(voices)
    for index, (name, voice) in enumerate(voices.items()):
        room = voice + 10 ** (-70 / 20) * white(len(voice))
        yield Case(f"{name}: quiet room", room, is_good=True)
        good = list(GOOD.items())
        for step in range(2):
            condition, change = good[(2 * index + step) % len(good)]
            yield Case(f"{name}: {condition}", change(room), is_good=True)
        for step, snr_db in enumerate((5, 8, 15, 25)):
            noise, make = list(NOISES.items())[(index + step) % len(NOISES)]
            noisy = voice + make(index) * _active_rms(voice) / _audible_rms(make(index)) / 10 ** (snr_db / 20)
            yield Case(f"{name}: {noise} at {snr_db} dB", noisy, is_good=snr_db > 11, snr_db=snr_db)
        other = voices[names[(index + 1) % len(names)]]
        turn_s = (3, 8, 15)[index % 3]
        yield Case(
            f"{name}: another voice each {turn_s} s", np.where(_TIMES // turn_s % 2 == 0, room, other), is_good=False
        )
        level_db = (-10, -5, 0, 6)[index % 4]
        yield Case(
            f"{name}: talk at {level_db} dB", room + _without_pauses(other) * 10 ** (level_db / 20), is_good=False
        )


GOOD: dict[str, Callable[[Sound], Sound]] = {
    "offset": lambda sound: sound + 0.1,
    "drift": lambda sound: sound + 0.05 * np.sin(2 * np.pi * 3 * _TIMES),
    "-50 dBFS": lambda sound: sound * 10 ** (-30 / 20),
    "small room": lambda sound: in_a_hall(sound, 0.2),
    "silent pauses": lambda sound: np.where(np.abs(sound) < 0.002, 0, sound),
    "hum at 25 dB": lambda sound: sound + hum(len(sound), 50, RATE) * 0.1 / 18,
    "long pauses": lambda sound: np.where(_TIMES % 20 < 6, 0.001, 1.0) * sound,
}
NOISES: dict[str, Callable[[int], Sound]] = {
    "white": lambda seed: white(len(_TIMES), seed + 1),
    "hum": lambda seed: hum(len(_TIMES), (50, 60)[seed % 2], RATE),
    "fan": lambda seed: np.convolve(white(len(_TIMES), seed + 1), np.hanning(20), "same"),
    "waves": lambda seed: white(len(_TIMES), seed + 1) * (1 + 0.7 * np.sin(2 * np.pi * 0.9 * _TIMES)),
    "chords": lambda _: chord(len(_TIMES), RATE),
    "babble": lambda seed: np.resize(babble(len(_TIMES) * 44100 // RATE, seed + 1)[::2], len(_TIMES)),
}


def synthetic_voices(count: int) -> dict[str, Sound]:
    """Voices that read with a pause for breath in every four seconds."""
    pauses = np.where(_TIMES % 4 < 0.7, 0.0003, 1.0)
    return {
        f"{language}+{variant}": speech(SECONDS, language=language, variant=variant, rate=RATE) * pauses
        for language, variant in SYNTHETIC[:count]
    }


def real_voices(folder: Path, seed: int = 1) -> dict[str, Sound]:
    """One voice for each subfolder that has enough sound."""
    random, found = np.random.default_rng(seed), {}
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(path for path in person.rglob("*") if path.is_file())
        parts: list[Sound] = []
        for index in random.permutation(len(files)):
            clip = _clip(files[index])
            if len(clip) >= _MIN_CLIP_SAMPLES:
                parts += [clip, np.zeros(int(random.uniform(0.2, 0.7) * RATE))]
            if sum(map(len, parts)) >= len(_TIMES):
                voice = np.concatenate(parts)[: len(_TIMES)]
                found[person.name] = voice * 0.1 / _active_rms(voice)
                break
    return found


def _clip(path: Path) -> Sound:
    """The sound of a file without the silence around it. Empty if it cannot be decoded."""
    resampler, parts = av.AudioResampler("dbl", "mono", RATE), [np.zeros(0)]
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                parts += [part.to_ndarray().reshape(-1) for part in resampler.resample(frame)]
    except (av.FFmpegError, IndexError, ValueError):
        return np.zeros(0)
    sound = np.concatenate(parts)
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max(initial=1e-3))
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound[:0]


def _active_rms(voice: Sound) -> float:
    parts = voice[: len(voice) // 512 * 512].reshape(-1, 512)
    power = np.mean(parts**2, axis=1)
    return float(np.sqrt(power[power > np.percentile(power, 95) / 600].mean()))


def _audible_rms(noise: Sound) -> float:
    """Level of what is above 80 Hz."""
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(noise), 1 / RATE) < 80] = 0
    return float(np.sqrt(np.mean(np.fft.irfft(spectrum, len(noise)) ** 2)))


def _without_pauses(voice: Sound) -> Sound:
    """A television talks without long pauses."""
    parts = voice[: len(voice) // 512 * 512].reshape(-1, 512)
    power = np.convolve(np.mean(parts**2, axis=1), np.ones(7) / 7, "same")
    return np.resize(parts[power > np.percentile(power, 95) / 600].reshape(-1), len(voice))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voices", type=Path, help="folder with one subfolder for each person")
    parser.add_argument("--quick", action="store_true", help="two synthetic voices")
    options = parser.parse_args()
    voices = real_voices(options.voices) if options.voices else synthetic_voices(2 if options.quick else len(SYNTHETIC))
    results = []
    for case in cases(voices):
        result = judged(case)
        results.append(result)
        verdict = "/".join(result.codes) or "accepted"
        mark = " " if bool(result.codes) is not case.is_good else "!"
        truth = "" if case.snr_db is None else f" (truth {case.snr_db})"
        sys.stdout.write(
            f"{mark} {case.name}: {verdict}, {result.snr_db:.1f} dB{truth} {' '.join(result.warnings)[:60]}\n"
        )
    sys.stdout.write("".join(f"{line}\n" for line in summary(results)))


def summary(results: list[Result]) -> Iterator[str]:
    good = [result for result in results if result.case.is_good]
    bad = [result for result in results if not result.case.is_good]
    yield f"false refusals: {sum(bool(result.codes) for result in good)} of {len(good)}"
    yield f"false acceptances: {sum(not result.codes for result in bad)} of {len(bad)}"
    yield f"false acceptances without a warning: {sum(not (result.codes or result.warnings) for result in bad)}"
    errors = [result.snr_db - result.case.snr_db for result in results if result.case.snr_db is not None]
    near = sum(abs(error) <= 3 for error in errors)
    yield f"SNR within 3 dB: {near} of {len(errors)}, mean error {np.mean(errors):.1f} dB"


if __name__ == "__main__":
    main()
