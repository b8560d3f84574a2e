"""Runs attempts of clone jobs in threads of the worker process.

So a request that gets no response delays no other job. A process that stops normally waits up to STOP_TIMEOUT_S for its
running attempts. The others end with the process. When their leases have expired, the periodic sweep starts new
attempts.
"""

import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as StillRunning
from contextlib import suppress

import structlog
from celery.signals import worker_process_shutdown
from django.db import connections

from cloning.jobs import runner

MAX_PARALLEL = 8  # per process
STOP_TIMEOUT_S = 60.0  # a worker that stops runs no periodic tasks, and the next one may start only after its end
PATIENCE_S = 3.0  # a usual attempt ends within this time

_executor = ThreadPoolExecutor(MAX_PARALLEL, thread_name_prefix="clone-attempt")
_lock = threading.Lock()
_running: dict[uuid.UUID, Future[None]] = {}

log = structlog.get_logger(__name__)


def start(job_id: uuid.UUID) -> None:
    """Starts an attempt of the job in a thread, and waits up to PATIENCE_S for its end.

    Does nothing if this process already has an attempt of this job. Raises an unexpected error of the attempt if it
    occurs within PATIENCE_S. Later errors are only logged.
    """
    with _lock:
        if job_id in _running:
            return
        attempt = _running[job_id] = _executor.submit(_run, job_id)
    with suppress(StillRunning):
        attempt.result(PATIENCE_S)
        return
    attempt.add_done_callback(_log_error)


def _run(job_id: uuid.UUID) -> None:
    try:
        runner.run(job_id)
    finally:
        with _lock:
            del _running[job_id]
        connections.close_all()  # Celery closes only those of its own threads


@worker_process_shutdown.connect
def wait_for_attempts(**_: object) -> None:
    """Waits up to STOP_TIMEOUT_S until the running attempts of this process have ended.

    Those that have not started are left to the sweep. Celery ends a process of its prefork pool with os._exit. With any
    other pool, Python waits for the threads.
    """
    _executor.shutdown(wait=False, cancel_futures=True)
    with _lock:
        attempts = [attempt for attempt in _running.values() if not attempt.cancelled()]
    wait(attempts, timeout=STOP_TIMEOUT_S)


def _log_error(attempt: "Future[None]") -> None:
    if not attempt.cancelled() and (error := attempt.exception()):
        log.error("cloning.attempt_failed", error=type(error).__name__)
