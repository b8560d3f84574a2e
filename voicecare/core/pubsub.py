"""Notifications between processes: "check the rows of this patient now" or "check the provider state now".

A notification is sent through Redis publish/subscribe and contains at most an id. All data is in the database. If a
notification is lost, a periodic check of the database finds the row within a second. Without Redis, or while Redis is
unavailable, a notification reaches only the process that publishes it.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import cache

import redis
import structlog
from django.conf import settings
from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from voicecare.core import metrics

CHANNEL = "voicecare:hints"
PROVIDER = "provider"  # sent instead of a patient id
PUBLISH_TIMEOUT_S = 0.25
RETRY_INTERVAL_S = 2.0
PING_INTERVAL_S = 3.0  # silence after which Redis gets a ping, and the time limit for the answer
RECONNECT_DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Subscriber:
    loop: asyncio.AbstractEventLoop
    on_patient: Callable[[uuid.UUID], None]
    on_provider: Callable[[], None]

    def handle(self, subject: str) -> None:
        """Calls the handler for a subject, which is a patient id or `PROVIDER`. Never raises."""
        try:
            self.on_provider() if subject == PROVIDER else self.on_patient(uuid.UUID(subject))
        except Exception as error:  # no error of a handler may end the subscription
            log.warning("pubsub.handler_failed", error=type(error).__name__)


class PubSub:
    """Publishes notifications, and calls handlers for those of all processes. Each process has one instance.

    The `publish` methods can wait for Redis, so call them in a thread. `run` is for the event loop.
    """

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._process = uuid.uuid4().hex  # to ignore its own messages, which it has handled directly
        self._subscribers: list[_Subscriber] = []
        self._paused_until = 0.0
        timeouts = {"socket_timeout": PUBLISH_TIMEOUT_S, "socket_connect_timeout": PUBLISH_TIMEOUT_S}
        self._redis = redis.Redis.from_url(redis_url, retry=Retry(NoBackoff(), 0), **timeouts) if redis_url else None

    def publish_patient(self, patient: uuid.UUID) -> None:
        """Notifies all processes that there may be queued speech for this patient.

        Call this after the commit of the row. Blocks for at most half a second. Never raises, because a lost
        notification is harmless.
        """
        self._publish(str(patient))

    def publish_provider(self) -> None:
        """Notifies all processes that the row with the provider's state has changed.

        Blocks for at most half a second. Never raises.
        """
        self._publish(PROVIDER)

    async def run(self, on_patient: Callable[[uuid.UUID], None], on_provider: Callable[[], None]) -> None:
        """Calls the handlers on this event loop for every notification, until this task is cancelled.

        Connects to Redis again after each failure. The handlers must not block.
        """
        subscriber = _Subscriber(asyncio.get_running_loop(), on_patient, on_provider)
        self._subscribers.append(subscriber)
        try:
            await (self._listen(subscriber) if self._url else asyncio.Event().wait())
        finally:
            self._subscribers.remove(subscriber)

    def _publish(self, subject: str) -> None:
        for subscriber in list(self._subscribers):
            with suppress(RuntimeError):  # the loop of this subscriber has ended
                # In a new context. In the context of the publishing request, handlers would use its thread, which ends.
                subscriber.loop.call_soon_threadsafe(subscriber.handle, subject, context=Context())
        if self._redis is None:
            return
        if time.monotonic() < self._paused_until:
            metrics.HINTS_LOST.inc()
            return
        try:
            self._redis.publish(CHANNEL, f"{self._process} {subject}")
        except Exception as error:  # after any error the periodic check finds the committed row
            metrics.HINTS_LOST.inc()
            if not self._paused_until:
                log.warning("pubsub.publish_failed", error=type(error).__name__)
            self._paused_until = time.monotonic() + RETRY_INTERVAL_S
        else:
            self._paused_until = 0.0

    async def _listen(self, subscriber: _Subscriber) -> None:
        failures = 0
        while True:
            try:
                async for subject in self._messages():
                    if failures:
                        log.info("pubsub.reconnected")
                        failures = 0
                    if subject:
                        subscriber.handle(subject)
            except Exception as error:  # after any error it connects again
                if not failures:
                    log.warning("pubsub.disconnected", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_DELAYS_S[min(failures, len(RECONNECT_DELAYS_S) - 1)])
            failures += 1

    async def _messages(self) -> AsyncIterator[str]:
        """Yields an empty string when the subscription is active, and then the subjects that other processes publish.

        Raises an exception if Redis is unavailable or stops responding.
        """
        client = redis_asyncio.Redis.from_url(
            self._url,
            socket_timeout=PING_INTERVAL_S,
            socket_connect_timeout=PING_INTERVAL_S,
            retry=AsyncRetry(NoBackoff(), 0),
        )
        async with client, client.pubsub() as pubsub:
            await pubsub.subscribe(CHANNEL)
            is_waiting = True  # for the answer to "subscribe" or "ping"
            while True:
                message = await pubsub.get_message(timeout=PING_INTERVAL_S)
                if message is None and is_waiting:
                    raise TimeoutError
                is_waiting = message is None
                if message is None:
                    await pubsub.ping()
                elif message["type"] == "subscribe":
                    yield ""
                elif message["type"] == "message":
                    process, _, subject = message["data"].decode(errors="replace").partition(" ")
                    if process != self._process:
                        yield subject


@cache
def process_pubsub() -> PubSub:
    """Returns the `PubSub` of this process. It is created when it is first used.

    It does not belong to the services of the web process, because Celery workers and commands publish, too.
    """
    return PubSub(settings.REDIS_URL)


def publish_patient(patient: uuid.UUID) -> None:
    process_pubsub().publish_patient(patient)


def publish_provider() -> None:
    process_pubsub().publish_provider()
