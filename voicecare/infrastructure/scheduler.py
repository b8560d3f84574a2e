"""Celery beat's scheduler, with a heartbeat that shows that it runs."""

import socket
import time
import uuid
from threading import Thread
from typing import Any

import structlog
from celery.beat import PersistentScheduler
from django.db import connection

from usage.alerts import heartbeats

INSTANCE = f"{socket.gethostname()[:40]} {uuid.uuid4().hex[:8]}"  # containers may share a host name and a process id

log = structlog.get_logger(__name__)


class Scheduler(PersistentScheduler):
    """Writes a heartbeat to the database at intervals. A missing heartbeat opens an incident.

    A thread writes it, so that a slow or unavailable database does not delay the schedule.
    """

    _last_heartbeat_at = float("-inf")
    _writer: Thread | None = None

    def tick(self, *args: Any, **kwargs: Any) -> float:  # noqa: ANN401 - Celery's signature
        now = time.monotonic()
        if now - self._last_heartbeat_at >= heartbeats.INTERVAL_S and not (self._writer and self._writer.is_alive()):
            self._last_heartbeat_at = now
            self._writer = Thread(target=_write_heartbeat, daemon=True)
            self._writer.start()
        pause: float = super().tick(*args, **kwargs)
        return min(pause, heartbeats.INTERVAL_S)


def _write_heartbeat() -> None:
    try:
        heartbeats.beat(heartbeats.BEAT, INSTANCE)
    except Exception as error:  # the next tick tries again
        log.warning("beat.heartbeat_failed", error=type(error).__name__)
    finally:
        connection.close()
