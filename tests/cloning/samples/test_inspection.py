"""The child that listens: what is made of good and of hostile files, and that it stays within its time and memory."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import structlog
from pytest_django import Settings

from cloning.samples import inspection
from cloning.samples.acceptance import MAX_BYTES, Report, SampleRefused
from cloning.samples.inspection import inspect_sample
from tests.cloning.samples.recordings import RATE, encoded, mixed, pink, silent_hours, speech, white

ROOT = Path(inspection.__file__).parents[2]
SECRET = "a-secret-of-the-parent"


@cache
def good(seconds: int = 62, codec: str = "libmp3lame") -> bytes:
    voice = np.resize(speech(min(seconds, 90)), seconds * RATE)
    return encoded(mixed(voice, pink(len(voice)), 30), codec)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "recording.exe"  # names say nothing
        path.write_bytes(data)
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(SampleRefused) as refused:
        inspect_sample(path)
    return refused.value.code


def python(code: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", code], input=stdin, capture_output=True, cwd=ROOT, check=False)


def test_a_good_recording_is_reported(file):
    report = inspect_sample(file(good()))
    assert isinstance(report, Report)
    assert (report.duration_s, report.codec, report.sample_rate_hz, report.channels) == (62.0, "mp3", 44100, 1)
    assert report.warnings == ()


def test_the_operators_thresholds_hold(file, settings: Settings):
    settings.CLONE_MIN_SNR_DB = 55.0
    assert refusal(file(good())) == "too_noisy"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: b"", "corrupt_audio"),
        (lambda: b"<html>" * 999, "unsupported_format"),
        (lambda: good()[:200_000], "corrupt_audio"),
        (lambda: bytes(MAX_BYTES + 1), "too_large"),
        (lambda: encoded(0.1 * white(16000 * 20), "pcm_s16le", 16000), "too_short"),
        (lambda: encoded(np.zeros(16000 * 61), "pcm_s16le", 16000), "mostly_silence"),
    ],
    ids=["empty", "html", "cut", "large", "short", "silent"],
)
def test_what_is_no_sample_is_refused(file, make: Callable[[], bytes], code: str):
    assert refusal(file(make())) == code


def test_a_missing_file_is_no_refusal(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        inspect_sample(tmp_path / "gone")


def test_many_at_once_have_their_own_answers(file, tmp_path: Path):
    paths = []
    for seconds in range(1, 7):
        paths.append(tmp_path / str(seconds))
        paths[-1].write_bytes(encoded(0.1 * white(16000 * seconds), "pcm_s16le", 16000))
    with ThreadPoolExecutor(6) as pool:
        refused = list(pool.map(lambda path: pool_error(path).message, paths))
    assert [float(re.search(r"[\d.]+", text)[0]) for text in refused] == [1, 2, 3, 4, 5, 6]


def pool_error(path: Path) -> SampleRefused:
    try:
        inspect_sample(path)
    except SampleRefused as refused:
        return refused
    raise AssertionError("accepted")


# Time and memory


@pytest.mark.timed
@pytest.mark.parametrize("seconds", [60, 180])
@pytest.mark.parametrize("codec", ["libmp3lame", "aac"])
def test_a_sample_is_judged_in_five_seconds(file, seconds: int, codec: str):
    path = file(good(seconds, codec))
    began = time.monotonic()
    inspect_sample(path)
    assert time.monotonic() - began < 5


PEAK = (
    "import sys; from cloning.samples.worker import main; main(); "
    "sys.stderr.write(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
)


@pytest.mark.parametrize("kind", ["three minutes", "eight hours", "192 kHz"])
def test_it_takes_less_than_300_megabytes(kind: str):
    data = {
        "three minutes": lambda: good(180),
        "eight hours": lambda: silent_hours(8),
        "192 kHz": lambda: encoded(0.1 * white(192_000 * 25), "pcm_s16le", 192_000),
    }[kind]()
    child = python(PEAK, data)
    assert child.returncode == 0
    assert int(child.stderr) / 1024 < 300


def test_the_child_knows_neither_django_nor_celery():
    child = python(
        "import sys, cloning.samples.worker\n"
        "print({'django', 'celery', 'structlog', 'voicecare.settings'} & set(sys.modules))"
    )
    assert child.stdout.strip() == b"set()"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("bytearray(1 << 31)", b"MemoryError"),
        ("import os; os.write(os.memfd_create('file'), b'x')", b"File too large"),
        ("held = []\nwhile True: held.append(open('/dev/null'))", b"Too many open files"),
    ],
    ids=["memory", "disk", "files"],
)
def test_the_child_is_confined(code: str, error: bytes):
    child = python(f"from cloning.samples.worker import apply_resource_limits\napply_resource_limits()\n{code}")
    assert child.returncode == 1
    assert error in child.stderr


def test_it_cannot_outlive_its_time_and_leaves_the_processor_to_others():
    code = (
        "import os, signal; from cloning.samples.worker import apply_resource_limits; apply_resource_limits(); "
        "print(signal.alarm(0), os.nice(0))"
    )
    seconds, nice = python(code).stdout.split()
    assert 0 < int(seconds) <= 60
    assert int(nice) >= 10


# A child that dies


def children() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def started(before: set[int], inspection_future: "Future[Report]") -> int:
    """The child, as soon as it is the program that it is going to be."""
    while not inspection_future.done():
        for pid in children() - before:
            if b"cloning.samples.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        time.sleep(0.005)
    raise AssertionError("it was over before it was seen")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGKILL, -9), (signal.SIGSEGV, -11), (signal.SIGXCPU, -24)])
def test_a_child_that_is_killed_refuses_the_file(file, number: int, exit_code: int):
    path, before = file(good()), children()
    with structlog.testing.capture_logs() as logs, ThreadPoolExecutor(1) as pool:
        judged = pool.submit(inspect_sample, path)
        os.kill(started(before, judged), number)
        refused = judged.exception(timeout=10)
    assert isinstance(refused, SampleRefused)
    assert refused.code == "corrupt_audio"
    assert [(entry["event"], entry["exit_code"]) for entry in logs] == [("cloning.sample_inspection_failed", exit_code)]
    assert str(path) not in str(logs)


def test_a_child_that_hangs_is_ended(file, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection, "_TIMEOUT_S", 1.0)
    path, before = file(good()), children()
    with ThreadPoolExecutor(1) as pool:
        judged = pool.submit(inspect_sample, path)
        pid = started(before, judged)
        os.kill(pid, signal.SIGSTOP)
        refused = judged.exception(timeout=10)
    assert isinstance(refused, SampleRefused)
    assert refused.code == "corrupt_audio"
    assert not Path(f"/proc/{pid}").exists()


def test_the_child_has_none_of_our_secrets(file, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_KEY", SECRET)
    path, before = file(good()), children()
    with ThreadPoolExecutor(1) as pool:
        judged = pool.submit(inspect_sample, path)
        pid = started(before, judged)
        assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert str(path).encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        os.kill(pid, signal.SIGKILL)
