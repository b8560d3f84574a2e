"""Sends task messages to Celery: the name of a task and ids.

A message only asks for work soon. Database rows are the queue, and the schedule runs the same tasks at intervals, so a
lost message loses no work.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog
from celery import current_app
from django.db import transaction

FAILURE_PAUSE_S = 10.0  # pause of publishing after a failure, because a hanging broker costs seconds for each message
MAX_PENDING = 100

TaskMessage = tuple[str, tuple[str, ...], float]  # task name, ids, delay in seconds

log = structlog.get_logger(__name__)


def enqueue_on_commit(task_name: str, *ids: object, delay_s: float = 0.0) -> None:
    """Enqueue the task when the current transaction commits, or immediately without one. Never raises, never blocks.

    `delay_s`: the task starts after this delay at the earliest.

    Publishing takes milliseconds, but up to seven seconds while the broker is down. A background thread does it.
    """
    message = task_name, tuple(map(str, ids)), delay_s
    transaction.on_commit(partial(_publisher.submit, message), robust=True)


class _TaskPublisher:
    """The publishing thread of this process. It starts with the first message, so that a process may fork before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: set[TaskMessage] = set()
        self._paused_until = 0.0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="task-publisher")

    def submit(self, message: TaskMessage) -> None:
        """Publish in the background. A message equal to a pending one is dropped."""
        with self._lock:
            if message in self._pending:
                return
            is_full = len(self._pending) >= MAX_PENDING
            if not is_full:
                self._pending.add(message)
        if is_full:
            log.warning("task_queue.message_lost", task=message[0], error="too many pending messages")
        else:
            self._executor.submit(self._publish, message)

    def _publish(self, message: TaskMessage) -> None:
        with self._lock:
            self._pending.discard(message)  # an equal message from now on asks for another run
        name, ids, delay_s = message
        if time.monotonic() < self._paused_until:
            log.warning("task_queue.message_lost", task=name, error="the broker failed recently")
            return
        try:
            current_app.send_task(name, args=ids, countdown=delay_s or None, retry=False, ignore_result=True)
        except Exception as error:  # brokers raise errors of many classes, and none may reach the sender
            self._paused_until = time.monotonic() + FAILURE_PAUSE_S
            log.warning("task_queue.message_lost", task=name, error=type(error).__name__)


_publisher = _TaskPublisher()
