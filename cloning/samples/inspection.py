"""Inspects a recording in a child process (`worker`), so that a malicious file cannot harm this process."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import structlog
from django.conf import settings

from cloning.samples.acceptance import Report, Thresholds, evaluate, unreadable_error
from cloning.samples.formats import MAX_BYTES
from cloning.samples.measurements import AudioMetrics

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 40.0  # the time limit of the worker (30 s), and its start on a busy machine
# One thread per library, because more would take processor time from live speech. No secrets are passed on.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_inspection_slots = threading.BoundedSemaphore(2)  # per process; each one takes 200 MB, and more would not be faster

log = structlog.get_logger()


def inspect_sample(path: Path) -> Report:
    """Returns the report of an acceptable recording. Raises SampleRefused for any other.

    Blocks for about 3 s, at most 40 s, and before that until an inspection slot is free. Call it in a thread or in a
    Celery task. If the worker crashes or exceeds its limits, the error code is `corrupt_audio`. No part of the file is
    logged.
    """
    if path.stat().st_size > MAX_BYTES:
        raise unreadable_error("too_large")
    with _inspection_slots, path.open("rb") as recording:
        try:
            child = subprocess.run(
                [sys.executable, "-m", "cloning.samples.worker"],
                stdin=recording,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=_ROOT,
                env=_ENVIRONMENT,
                timeout=_TIMEOUT_S,
                start_new_session=True,  # Ctrl-C must reach the parent only
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            # Exit code 1 is a bug in the worker. A negative code is the signal that has ended it.
            exit_code = getattr(error, "returncode", None)
            log.error("cloning.sample_inspection_failed", exit_code=exit_code, error=type(error).__name__)
            raise unreadable_error("damaged") from error
    result = json.loads(child.stdout)
    if "unreadable" in result:
        raise unreadable_error(result["unreadable"])
    return evaluate(AudioMetrics(**result), Thresholds(settings.CLONE_MIN_SNR_DB, settings.CLONE_MIN_SPEECH_RATIO))
