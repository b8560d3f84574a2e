"""When the next segment may be asked for (the contract, section 2, rules 1 and 3). Pure: the clock is passed in.

Nothing pushes back between the server and a device, so the bound on what waits there is in the asking. All times are
seconds of one monotonic clock, all sizes bytes of the speech's one format.
"""

MAX_LEAD_S = 8.0
MAX_LEAD_BYTES = 512 * 1024
_MIN_DELAY_S = 0.001  # below this a wait is rounding: who slept for `wait` must not be sent to sleep again


class Pacer:
    """The playback of one speech as far as the server can know it, in five numbers.

    Playback begins with the first frame, runs in real time, pauses when it has played all there is and goes on with
    the next frame. The device's `progress` corrects the estimate.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._sent_bytes = 0
        self._segment_start = 0  # where the latest segment begins
        self._played_bytes = 0.0  # the estimate at the time `_at`
        self._estimated_at = 0.0
        self._reported_ms = 0.0  # the furthest that the device has told

    def start_segment(self) -> None:
        """The frames from here on are the next segment's. Once per segment, also if it is spoken again."""
        self._segment_start = self._sent_bytes

    def record_sent(self, size: int, now: float) -> None:
        """A frame was handed over."""
        self._played_bytes, self._estimated_at = self._played_at(now), now
        self._sent_bytes += size

    def record_progress(self, ms: int, now: float) -> None:
        """The device has played `ms` of this speech. More than was sent, or less than it said before, is clamped."""
        self._reported_ms = max(self._reported_ms, min(ms, self._sent_bytes / self._rate * 1000))
        self._played_bytes, self._estimated_at = self._reported_ms / 1000 * self._rate, now

    def buffered_seconds(self, now: float) -> float:
        """How many seconds of audio the device has still to play."""
        return (self._sent_bytes - self._played_at(now)) / self._rate

    def delay_until_next(self, now: float) -> float:
        """How many seconds until the segment after the latest may be asked for; 0.0: now.

        Not before playback has reached the latest one, so that an interrupt costs at most the segment that plays and
        the one behind it; and not while the device is `LEAD_S` or `LEAD_BYTES` ahead.
        """
        allowed = min(MAX_LEAD_S * self._rate, MAX_LEAD_BYTES)
        due = max(self._segment_start, self._sent_bytes - allowed)
        seconds = (due - self._played_at(now)) / self._rate
        return seconds if seconds > _MIN_DELAY_S else 0.0

    def _played_at(self, now: float) -> float:
        return min(self._played_bytes + max(now - self._estimated_at, 0.0) * self._rate, self._sent_bytes)
