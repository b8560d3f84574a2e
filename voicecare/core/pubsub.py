"""Hints between processes: "look at this patient's rows now", "look at the provider's state now".

They travel over Redis pub/sub and carry an id at most; the row is the truth, and the hub's sweep finds within a second
what a lost hint spoke of. Without Redis, and while it is away, only this process hears them.
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
PROVIDER = "provider"  # in the place of a patient's id
PUBLISH_TIMEOUT_S = 0.25
RETRY_INTERVAL_S = 2.0
PING_INTERVAL_S = 3.0  # then Redis is asked whether it is there, and given as long to answer
RECONNECT_DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Subscriber:
    loop: asyncio.AbstractEventLoop
    on_patient: Callable[[uuid.UUID], None]
    on_provider: Callable[[], None]

    def handle(self, subject: str) -> None:
        """Never raises: who stops listening for one bad hint misses all others."""
        try:
            self.on_provider() if subject == PROVIDER else self.on_patient(uuid.UUID(subject))
        except Exception as error:
            log.warning("pubsub.handler_failed", error=type(error).__name__)


class PubSub:
    """One for each process. Publishing may wait for Redis and is for threads and Celery; listening is for the loop."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._process = uuid.uuid4().hex  # what it has published it has heard already
        self._subscribers: list[_Subscriber] = []
        self._paused_until = 0.0
        timeouts = {"socket_timeout": PUBLISH_TIMEOUT_S, "socket_connect_timeout": PUBLISH_TIMEOUT_S}
        self._redis = redis.Redis.from_url(redis_url, retry=Retry(NoBackoff(), 0), **timeouts) if redis_url else None

    def publish_patient(self, patient: uuid.UUID) -> None:
        """There may be something to say to this patient. At most half a second; never raises; call it after commit."""
        self._publish(str(patient))

    def publish_provider(self) -> None:
        """The provider's state has changed. As `publish_patient`."""
        self._publish(PROVIDER)

    async def run(self, on_patient: Callable[[uuid.UUID], None], on_provider: Callable[[], None]) -> None:
        """Calls back for every hint, on this loop, until cancelled. Redis may come and go."""
        subscriber = _Subscriber(asyncio.get_running_loop(), on_patient, on_provider)
        self._subscribers.append(subscriber)
        try:
            await (self._listen(subscriber) if self._url else asyncio.Event().wait())
        finally:
            self._subscribers.remove(subscriber)

    def _publish(self, subject: str) -> None:
        for subscriber in list(self._subscribers):
            with suppress(RuntimeError):  # its loop has ended
                # Not in the context of the request that publishes: what begins there would use its thread, which ends.
                subscriber.loop.call_soon_threadsafe(subscriber.handle, subject, context=Context())
        if self._redis is None:
            return
        if time.monotonic() < self._paused_until:
            metrics.HINTS_LOST.inc()
            return
        try:
            self._redis.publish(CHANNEL, f"{self._process} {subject}")
        except Exception as error:  # whatever it is: the row is committed, and the sweep finds it
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
            except Exception as error:  # whatever it is: the next connection may be better
                if not failures:
                    log.warning("pubsub.disconnected", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_DELAYS_S[min(failures, len(RECONNECT_DELAYS_S) - 1)])
            failures += 1

    async def _messages(self) -> AsyncIterator[str]:
        """What other processes publish; an empty one when it begins to listen. Raises when Redis is away."""
        client = redis_asyncio.Redis.from_url(
            self._url,
            socket_timeout=PING_INTERVAL_S,
            socket_connect_timeout=PING_INTERVAL_S,
            retry=AsyncRetry(NoBackoff(), 0),
        )
        async with client, client.pubsub() as pubsub:
            await pubsub.subscribe(CHANNEL)
            asked = True  # to subscribe
            while True:
                message = await pubsub.get_message(timeout=PING_INTERVAL_S)
                if message is None and asked:
                    raise TimeoutError
                asked = message is None
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
    """The `PubSub` of this process, made at first use. Celery workers and commands publish too, and have no runtime."""
    return PubSub(settings.REDIS_URL)


def publish_patient(patient: uuid.UUID) -> None:
    process_pubsub().publish_patient(patient)


def publish_provider() -> None:
    process_pubsub().publish_provider()
