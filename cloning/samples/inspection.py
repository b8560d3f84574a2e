"""Inspects a recording in a child process (`worker`), so that a malicious file cannot harm this process."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, NamedTuple

import structlog
from django.conf import settings

from cloning.samples.acceptance import InspectionFailed, Report, Thresholds, evaluate, unreadable_error
from cloning.samples.formats import MAX_BYTES
from cloning.samples.measurements import AudioMetrics

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 70.0  # the time limit of the worker (60 s), and its start on a busy machine
# One thread per library, because more would take processor time from live speech. No secrets are passed on.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_NOT_INSPECTED = (
    "The recording could not be checked. This is a fault of this server and says nothing about the recording. Send it "
    "again in a few minutes. If this repeats, export the recording as MP3 and send that file, or tell your "
    "administrator."
)
_inspection_slots = threading.BoundedSemaphore(2)  # per process; each one takes 300 MB, and more would not be faster

log = structlog.get_logger()


class Inspection(NamedTuple):
    """The result for an acceptable recording.

    The provider gets `replacement`, the content of a converted file, or the recording itself if `replacement` is empty.
    `media_type` is the content type of the file that the provider gets.
    """

    report: Report
    media_type: str
    replacement: bytes


def inspect_sample(recording: IO[bytes]) -> Inspection:
    """Inspects a recording in a child process and returns the result.

    `recording` must be a file of the operating system. Raises SampleRefused for a recording that is not acceptable.
    Raises InspectionFailed if the child process crashes or exceeds its limits. This says nothing about the recording,
    because the reason may be a machine without free memory, for example. No part of the file is logged.

    Only a few recordings are inspected at the same time. So this blocks until the child process can start, and then for
    about 3 s, at most 70 s. Call it in a thread or in a Celery task.
    """
    if recording.seek(0, os.SEEK_END) > MAX_BYTES:
        raise unreadable_error("too_large")
    recording.seek(0)
    with _inspection_slots:
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
            raise InspectionFailed(_NOT_INSPECTED) from error
    line, _, replacement = child.stdout.partition(b"\n")
    result = json.loads(line)
    if "unreadable" in result:
        raise unreadable_error(result["unreadable"])
    thresholds = Thresholds(settings.CLONE_MIN_SNR_DB, settings.CLONE_MIN_SPEECH_S)
    return Inspection(evaluate(AudioMetrics(**result["metrics"]), thresholds), result["media_type"], replacement)
