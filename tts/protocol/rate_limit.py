"""How much a device may say in a minute. Pure: the clock is passed in."""

from collections import deque

from tts.protocol.messages import ProtocolError

WINDOW_S = 60.0


class SlidingWindowRateLimiter:
    """Characters accepted in the last 60 seconds, against a limit. Raises ProtocolError (`rate_limited`) beyond it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sum = 0
        self._accepted: deque[tuple[float, int]] = deque()

    def acquire(self, characters: int, now: float, speech_id: str) -> None:
        while self._accepted and self._accepted[0][0] <= now - WINDOW_S:
            self._sum -= self._accepted.popleft()[1]
        if self._sum + characters > self._limit:
            raise ProtocolError("rate_limited", f"Over {self._limit} characters a minute: try again later.", speech_id)
        self._accepted.append((now, characters))
        self._sum += characters
