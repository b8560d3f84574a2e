"""Hints: "look now", told to Celery by a task's name and ids. A lost one loses nothing: rows are the queue, and the
schedule looks at them anyway.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog
from celery import current_app
from django.db import transaction

FAILURE_PAUSE_S = 10.0  # nothing is published for so long after a failure; a hanging broker costs seconds each time
MAX_PENDING = 100

TaskMessage = tuple[str, tuple[str, ...], float]

log = structlog.get_logger(__name__)


def enqueue_on_commit(task_name: str, *ids: object, in_s: float = 0.0) -> None:
    """Has the task run soon with these ids, once the transaction under way is committed. Never raises, never waits.
    `in_s`: not before so many seconds.

    Publishing takes milliseconds, but up to seven seconds where the broker is down, so a thread of its own does it.
    """
    hint = task_name, tuple(map(str, ids)), in_s
    transaction.on_commit(partial(_publisher.submit, hint), robust=True)


class _TaskPublisher:
    """The process's one publishing thread; it begins with the first hint, so that a process may fork before that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: set[TaskMessage] = set()
        self._paused_until = 0.0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hints")

    def submit(self, hint: TaskMessage) -> None:
        """One that is waiting already need not be told twice."""
        with self._lock:
            if hint in self._pending:
                return
            lost = len(self._pending) >= MAX_PENDING
            if not lost:
                self._pending.add(hint)
        if lost:
            log.warning("hints.lost", task=hint[0], error="too many waiting")
        else:
            self._executor.submit(self._publish, hint)

    def _publish(self, hint: TaskMessage) -> None:
        with self._lock:
            self._pending.discard(hint)  # from here on the same hint would be news
        name, ids, in_s = hint
        if time.monotonic() < self._paused_until:
            log.warning("hints.lost", task=name, error="the broker failed just now")
            return
        try:
            current_app.send_task(name, args=ids, countdown=in_s or None, retry=False, ignore_result=True)
        except Exception as error:  # whatever the broker's library raises: a hint fails nobody
            self._paused_until = time.monotonic() + FAILURE_PAUSE_S
            log.warning("hints.lost", task=name, error=type(error).__name__)


_publisher = _TaskPublisher()
