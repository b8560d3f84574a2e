"""The inspection of good and malicious files in the worker, and the time and memory limits of the worker."""

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
from cloning.samples.acceptance import MAX_BYTES, InspectionFailed, Report, SampleRefused
from tests.cloning.samples.recordings import RATE, encoded, mixed, pink, silent_hours, speech, white
from tests.processes import child_processes, command_line

ROOT = Path(inspection.__file__).parents[2]
SECRET = "a-secret-of-the-parent"


@cache
def good_recording(seconds: int = 62, codec: str = "libmp3lame") -> bytes:
    voice = np.resize(speech(min(seconds, 90)), seconds * RATE)
    return encoded(mixed(voice, pink(len(voice)), 30), codec)


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "recording.exe"  # file names are ignored
        path.write_bytes(data)
        return path

    return write


def inspect_sample(path: Path) -> inspection.Inspection:
    with path.open("rb") as recording:
        return inspection.inspect_sample(recording)


def refusal_code(path: Path) -> str:
    with pytest.raises(SampleRefused) as refused:
        inspect_sample(path)
    return refused.value.code


def python(code: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", code], input=stdin, capture_output=True, cwd=ROOT, check=False)


def test_a_good_recording_is_reported(write_file):
    report, media_type, replacement = inspect_sample(write_file(good_recording()))
    assert isinstance(report, Report)
    assert (media_type, replacement) == ("audio/mpeg", b"")
    assert (report.duration_s, report.codec, report.sample_rate_hz, report.channels) == (62.0, "mp3", 44100, 1)
    assert report.warnings == ()


def test_the_thresholds_of_the_settings_are_used(write_file, settings: Settings):
    settings.CLONE_MIN_SNR_DB = 55.0
    assert refusal_code(write_file(good_recording())) == "too_noisy"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: b"", "corrupt_audio"),
        (lambda: b"<html>" * 999, "unsupported_format"),
        (lambda: good_recording()[:200_000], "corrupt_audio"),
        (lambda: bytes(MAX_BYTES + 1), "too_large"),
        (lambda: encoded(0.1 * white(16000 * 20), "pcm_s16le", 16000), "too_short"),
        (lambda: encoded(np.zeros(16000 * 61), "pcm_s16le", 16000), "mostly_silence"),
    ],
    ids=["empty", "html", "cut", "large", "short", "silent"],
)
def test_an_unsuitable_file_is_refused(write_file, make: Callable[[], bytes], code: str):
    assert refusal_code(write_file(make())) == code


def test_the_refusal_of_a_short_and_noisy_recording_has_both_problems(write_file):
    voice = speech(50)
    refused = refusal(write_file(encoded(mixed(voice, white(len(voice)), 0), "libmp3lame")))
    assert [problem.code for problem in refused.problems] == ["too_short", "too_noisy"]


def test_simultaneous_inspections_return_their_own_results(write_file, tmp_path: Path):
    paths = []
    for seconds in range(1, 7):
        paths.append(tmp_path / str(seconds))
        paths[-1].write_bytes(encoded(0.1 * white(16000 * seconds), "pcm_s16le", 16000))
    with ThreadPoolExecutor(6) as pool:
        refused = list(pool.map(lambda path: refusal(path).message, paths))
    assert [float(re.search(r"[\d.]+", text)[0]) for text in refused] == [1, 2, 3, 4, 5, 6]


def refusal(path: Path) -> SampleRefused:
    try:
        inspect_sample(path)
    except SampleRefused as refused:
        return refused
    raise AssertionError("accepted")


# Time and memory


@pytest.mark.timed
@pytest.mark.parametrize("seconds", [60, 180])
@pytest.mark.parametrize("codec", ["libmp3lame", "aac"])
def test_an_inspection_takes_less_than_fifteen_seconds(write_file, seconds: int, codec: str):
    path = write_file(good_recording(seconds, codec))
    began = time.monotonic()
    inspect_sample(path)
    assert time.monotonic() - began < 15


PRINT_PEAK_MEMORY = (
    "import sys; from cloning.samples.worker import main; main(); "
    "sys.stderr.write(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
)


@pytest.mark.parametrize("kind", ["three minutes", "eight hours", "192 kHz"])
def test_an_inspection_takes_less_than_350_megabytes(kind: str):
    data = {
        "three minutes": lambda: good_recording(180),
        "eight hours": lambda: silent_hours(8),
        "192 kHz": lambda: encoded(0.1 * white(192_000 * 25), "pcm_s16le", 192_000),
    }[kind]()
    child = python(PRINT_PEAK_MEMORY, data)
    assert child.returncode == 0
    assert int(child.stderr) / 1024 < 350


def test_the_worker_loads_neither_django_nor_celery():
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
def test_the_resource_limits_are_enforced(code: str, error: bytes):
    child = python(f"from cloning.samples.worker import apply_resource_limits\napply_resource_limits()\n{code}")
    assert child.returncode == 1
    assert error in child.stderr


def test_the_worker_works_on_a_system_without_a_memory_limit():
    code = (
        "import resource\n"
        "set_limit = resource.setrlimit\n"
        "def as_on_macos(limit, values):\n"
        "    if limit == resource.RLIMIT_AS: raise ValueError('current limit exceeds maximum limit')\n"
        "    set_limit(limit, values)\n"
        "resource.setrlimit = as_on_macos\n"
        "from cloning.samples.worker import main\n"
        "main()"
    )
    child = python(code, good_recording())
    assert child.returncode == 0, child.stderr
    assert b"duration_s" in child.stdout


def test_the_worker_has_a_time_limit_and_a_low_priority():
    code = (
        "import os, signal; from cloning.samples.worker import apply_resource_limits; apply_resource_limits(); "
        "print(signal.alarm(0), os.nice(0))"
    )
    seconds, nice = python(code).stdout.split()
    assert 0 < int(seconds) <= 60
    assert int(nice) >= 10


# A worker that dies


def wait_for_worker(before: set[int], inspection_future: "Future[inspection.Inspection]") -> int:
    """Returns the process id of the worker as soon as it runs the worker module."""
    while not inspection_future.done():
        for pid in child_processes() - before:
            if b"cloning.samples.worker" in command_line(pid):
                return pid
        time.sleep(0.005)
    raise AssertionError("the inspection ended before the worker was found")


@pytest.mark.parametrize(
    ("signal_number", "exit_code"), [(signal.SIGKILL, -9), (signal.SIGSEGV, -11), (signal.SIGXCPU, -24)]
)
def test_a_killed_worker_says_nothing_about_the_recording(write_file, signal_number: int, exit_code: int):
    path, before = write_file(good_recording()), child_processes()
    with structlog.testing.capture_logs() as logs, ThreadPoolExecutor(1) as pool:
        inspected = pool.submit(inspect_sample, path)
        os.kill(wait_for_worker(before, inspected), signal_number)
        refused = inspected.exception(timeout=10)
    assert isinstance(refused, InspectionFailed)
    assert (refused.code, refused.retryable) == ("inspection_failed", True)
    assert "damaged" not in refused.message
    assert [(entry["event"], entry["exit_code"]) for entry in logs] == [("cloning.sample_inspection_failed", exit_code)]
    assert str(path) not in str(logs)


def test_a_hanging_worker_is_killed(write_file, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection, "_TIMEOUT_S", 1.0)
    path, before = write_file(good_recording()), child_processes()
    with ThreadPoolExecutor(1) as pool:
        inspected = pool.submit(inspect_sample, path)
        pid = wait_for_worker(before, inspected)
        os.kill(pid, signal.SIGSTOP)
        refused = inspected.exception(timeout=10)
    assert isinstance(refused, InspectionFailed)
    assert (refused.code, refused.retryable) == ("inspection_failed", True)
    assert "damaged" not in refused.message
    assert not Path(f"/proc/{pid}").exists()


def test_the_worker_has_no_secrets(write_file, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_KEY", SECRET)
    path, before = write_file(good_recording()), child_processes()
    with ThreadPoolExecutor(1) as pool:
        inspected = pool.submit(inspect_sample, path)
        pid = wait_for_worker(before, inspected)
        assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert str(path).encode() not in command_line(pid)
        os.kill(pid, signal.SIGKILL)
