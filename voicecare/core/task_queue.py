"""Sends messages to Celery that start a task. A message has the name of the task, and ids as arguments.

No work depends on a message. The rows in the database are the queue, and Celery's schedule starts the same tasks at
intervals. A message only makes a task start sooner, so it may be lost.
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
    """Enqueues the task when the current transaction commits, or immediately without a transaction.

    `ids` are the arguments of the task. `delay_s` is the number of seconds after which the task may start. Never
    raises, never blocks: a background thread sends the message, because this takes milliseconds, and up to seven
    seconds while the broker is down. A message that cannot be sent is lost.
    """
    message = task_name, tuple(map(str, ids)), delay_s
    transaction.on_commit(partial(_publisher.submit, message), robust=True)


class _TaskPublisher:
    """The thread of this process that sends messages to the broker.

    The thread starts with the first message and not before, because a process may fork at its start.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: set[TaskMessage] = set()
        self._paused_until = 0.0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="task-publisher")

    def submit(self, message: TaskMessage) -> None:
        """Sends a message in the background.

        A message is dropped if an equal one is still waiting, or if too many are waiting.
        """
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
