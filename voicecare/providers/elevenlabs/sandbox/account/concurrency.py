"""Concurrency as the provider grants it: a limit for each model group, and past it a short queue, not a wall."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from voicecare.providers.elevenlabs.sandbox.account.models import Group
from voicecare.providers.elevenlabs.sandbox.config import Knobs
from voicecare.providers.elevenlabs.sandbox.errors import refusal

# The provider's own figure: past the limit a request has lower priority, which typically costs it 50 ms.
QUEUED_S = 0.05


@dataclass(frozen=True)
class Slot:
    """One request's place: the number in flight with it, the limit, and the seconds that it waits for its turn."""

    in_flight: int
    limit: int
    wait_s: float


class Slots:
    """Requests in flight by group, waiting ones included."""

    def __init__(self, knobs: Knobs) -> None:
        self._knobs = knobs
        self.in_flight: Counter[Group] = Counter()

    @contextmanager
    def held(self, group: Group) -> Iterator[Slot]:
        """Counts a request as in flight; raises 429 when the queue is full."""
        limit = self._knobs.concurrency
        queue = 0 if self._knobs.strict_concurrency else self._knobs.queue_limit
        if self.in_flight[group] >= limit + queue:
            raise refusal(
                "too_many_concurrent_requests",
                "Too many concurrent requests. Your current subscription is associated with a maximum of "
                f"{limit} concurrent requests (running in parallel).",
            )
        self.in_flight[group] += 1
        in_flight = self.in_flight[group]
        try:
            yield Slot(in_flight, limit, QUEUED_S if in_flight > limit else 0.0)
        finally:
            self.in_flight[group] -= 1
