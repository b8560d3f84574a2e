"""How much a device may say in a minute. Pure: the clock is passed in."""

from collections import deque

from tts.protocol.messages import Refused

WINDOW_S = 60.0


class CharacterRate:
    """Characters accepted in the last 60 seconds, against a limit. Raises Refused (`rate_limited`) beyond it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sum = 0
        self._taken: deque[tuple[float, int]] = deque()

    def take(self, characters: int, now: float, speech_id: str) -> None:
        while self._taken and self._taken[0][0] <= now - WINDOW_S:
            self._sum -= self._taken.popleft()[1]
        if self._sum + characters > self._limit:
            raise Refused("rate_limited", f"Over {self._limit} characters a minute: try again later.", speech_id)
        self._taken.append((now, characters))
        self._sum += characters
