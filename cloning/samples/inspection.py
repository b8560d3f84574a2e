"""A recording is judged in a process of its own (`child`), so that no file, however it was made, can harm this one."""

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
_TIMEOUT_S = 40.0  # the child's own, and its start on a busy machine
# Libraries that start a thread for each processor would take it from live speech, and secrets are none of a decoder's.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_inspection_slots = threading.BoundedSemaphore(2)  # for each process: more would take 200 MB each and end no sooner

log = structlog.get_logger()


def inspect_sample(path: Path) -> Report:
    """Blocks, for 3 s as a rule and never for much more than 40 s beside its turn; for threads and Celery tasks.

    Raises SampleRefused; a child that dies or exceeds its limits is `corrupt_audio`. Nothing of the file is logged.
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
                start_new_session=True,  # Ctrl-C is for the parent
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            # An exit code of 1 is a defect of ours, a negative one the signal that ended it.
            exit_code = getattr(error, "returncode", None)
            log.error("sample_judgement_died", exit_code=exit_code, error=type(error).__name__)
            raise unreadable_error("damaged") from error
    result = json.loads(child.stdout)
    if "unreadable" in result:
        raise unreadable_error(result["unreadable"])
    return evaluate(AudioMetrics(**result), Thresholds(settings.CLONE_MIN_SNR_DB, settings.CLONE_MIN_SPEECH_RATIO))
