"""When the next segment may be asked for (the contract, section 2, rules 1 and 3). Pure: the clock is passed in.

Nothing pushes back between the server and a device, so the bound on what waits there is in the asking. All times are
seconds of one monotonic clock, all sizes bytes of the speech's one format.
"""

LEAD_S = 8.0
LEAD_BYTES = 512 * 1024
_INSTANT_S = 0.001  # below this a wait is rounding: who slept for `wait` must not be sent to sleep again


class Pacing:
    """The playback of one speech as far as the server can know it, in five numbers.

    Playback begins with the first frame, runs in real time, pauses when it has played all there is and goes on with
    the next frame. The device's `progress` corrects the estimate.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._sent = 0
        self._segment = 0  # where the latest segment begins
        self._played = 0.0  # the estimate at the time `_at`
        self._at = 0.0
        self._reported_ms = 0.0  # the furthest that the device has told

    def segment_begins(self) -> None:
        """The frames from here on are the next segment's. Once per segment, also if it is spoken again."""
        self._segment = self._sent

    def sent(self, size: int, now: float) -> None:
        """A frame was handed over."""
        self._played, self._at = self._played_at(now), now
        self._sent += size

    def progress(self, ms: int, now: float) -> None:
        """The device has played `ms` of this speech. More than was sent, or less than it said before, is clamped."""
        self._reported_ms = max(self._reported_ms, min(ms, self._sent / self._rate * 1000))
        self._played, self._at = self._reported_ms / 1000 * self._rate, now

    def lead(self, now: float) -> float:
        """How many seconds of audio the device has still to play."""
        return (self._sent - self._played_at(now)) / self._rate

    def wait(self, now: float) -> float:
        """How many seconds until the segment after the latest may be asked for; 0.0: now.

        Not before playback has reached the latest one, so that an interrupt costs at most the segment that plays and
        the one behind it; and not while the device is `LEAD_S` or `LEAD_BYTES` ahead.
        """
        allowed = min(LEAD_S * self._rate, LEAD_BYTES)
        due = max(self._segment, self._sent - allowed)
        seconds = (due - self._played_at(now)) / self._rate
        return seconds if seconds > _INSTANT_S else 0.0

    def _played_at(self, now: float) -> float:
        return min(self._played + max(now - self._at, 0.0) * self._rate, self._sent)
