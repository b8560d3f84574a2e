"""The limit on the characters that a device may send in a minute. Pure: the clock is passed in."""

from collections import deque

from tts.protocol.messages import ProtocolError

WINDOW_S = 60.0


class SlidingWindowRateLimiter:
    """Counts the characters that were accepted in the last WINDOW_S seconds. `limit` is their maximum."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sum = 0
        self._accepted: deque[tuple[float, int]] = deque()

    def acquire(self, characters: int, now: float, speech_id: str) -> None:
        """Count `characters` at `now` (monotonic seconds).

        Raises ProtocolError (`rate_limited`) if they exceed the limit.
        """
        while self._accepted and self._accepted[0][0] <= now - WINDOW_S:
            self._sum -= self._accepted.popleft()[1]
        if self._sum + characters > self._limit:
            raise ProtocolError("rate_limited", f"Over {self._limit} characters a minute: try again later.", speech_id)
        self._accepted.append((now, characters))
        self._sum += characters
