"""Concurrency as the provider grants it: a limit for each model group, and past it a short queue, not a wall."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from voicecare.providers.elevenlabs.sandbox.account.models import Group
from voicecare.providers.elevenlabs.sandbox.config import SandboxConfig
from voicecare.providers.elevenlabs.sandbox.errors import preset_error

# The provider's own figure: past the limit a request has lower priority, which typically costs it 50 ms.
QUEUE_DELAY_S = 0.05


@dataclass(frozen=True)
class Slot:
    """One request's place: the number in flight with it, the limit, and the seconds that it waits for its turn."""

    in_flight: int
    limit: int
    wait_s: float


class ConcurrencySlots:
    """Requests in flight by group, waiting ones included."""

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self.in_flight: Counter[Group] = Counter()

    @contextmanager
    def hold(self, group: Group) -> Iterator[Slot]:
        """Counts a request as in flight; raises 429 when the queue is full."""
        limit = self._config.concurrency
        queue = 0 if self._config.strict_concurrency else self._config.queue_limit
        if self.in_flight[group] >= limit + queue:
            raise preset_error(
                "too_many_concurrent_requests",
                "Too many concurrent requests. Your current subscription is associated with a maximum of "
                f"{limit} concurrent requests (running in parallel).",
            )
        self.in_flight[group] += 1
        in_flight = self.in_flight[group]
        try:
            yield Slot(in_flight, limit, QUEUE_DELAY_S if in_flight > limit else 0.0)
        finally:
            self.in_flight[group] -= 1
