"""Limits concurrent requests like the provider: a limit for each model group, and a short queue beyond the limit."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from voicecare.providers.elevenlabs.sandbox.account.models import Group
from voicecare.providers.elevenlabs.sandbox.config import SandboxConfig
from voicecare.providers.elevenlabs.sandbox.errors import preset_error

# According to the provider, a request beyond the limit has lower priority, which typically costs 50 ms.
QUEUE_DELAY_S = 0.05


@dataclass(frozen=True)
class Slot:
    """The slot of one request.

    `in_flight` is the number of requests in progress, including this one. `wait_s` is the delay that this request gets,
    in seconds.
    """

    in_flight: int
    limit: int
    wait_s: float


class ConcurrencySlots:
    """Counts the requests in progress of each model group. Delayed requests are included."""

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self.in_flight: Counter[Group] = Counter()

    @contextmanager
    def hold(self, group: Group) -> Iterator[Slot]:
        """Holds a slot for a request inside the `with` block. Raises ApiError (429) if limit and queue are full."""
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
