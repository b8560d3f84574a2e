"""The time at which the next segment may be requested (docs/protocol.md, rules 1 and 3). Pure: the clock is passed in.

A device gives no back-pressure. So the server limits the audio that a device has to buffer by the times at which it
requests segments. All times are seconds of one monotonic clock. All sizes are bytes in the audio format of the speech.
"""

MAX_LEAD_S = 8.0
MAX_LEAD_BYTES = 512 * 1024
_MIN_DELAY_S = 0.001  # a shorter delay is a rounding error: after sleeping for the delay there must be none left


class Pacer:
    """Estimates how far a device has played one speech.

    Playback is assumed to begin with the first frame and to run in real time. It pauses when all frames are played and
    continues with the next frame. The device's `progress` messages correct the estimate.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._sent_bytes = 0.0
        self._segment_start = 0.0  # the offset of the latest segment
        self._played_bytes = 0.0  # the estimate for the time `_estimated_at`
        self._estimated_at = 0.0
        self._reported_ms = 0.0  # the highest position that the device has reported

    def start_segment(self) -> None:
        """Note that the next frames belong to a new segment.

        Call this once for each segment, even if it is spoken again.
        """
        self._segment_start = self._sent_bytes

    def record_sent(self, size: float, now: float) -> None:
        """Count a frame of `size` bytes that was sent at `now`.

        For a format whose bit rate varies, `size` is what its sound has at the nominal rate.
        """
        self._played_bytes, self._estimated_at = self._played_at(now), now
        self._sent_bytes += size

    def record_progress(self, ms: int, now: float) -> None:
        """Correct the estimate: the device reports that it has played `ms` milliseconds of this speech.

        The position is limited to the audio that was sent, and never goes back.
        """
        self._reported_ms = max(self._reported_ms, min(ms, self._sent_bytes / self._rate * 1000))
        self._played_bytes, self._estimated_at = self._reported_ms / 1000 * self._rate, now

    def buffered_seconds(self, now: float) -> float:
        """Return the seconds of audio that the device has not played yet."""
        return (self._sent_bytes - self._played_at(now)) / self._rate

    def delay_until_next(self, now: float) -> float:
        """Return the seconds until the next segment may be requested. 0.0 means now.

        Playback must have reached the latest segment. So an interrupt wastes at most the segment that plays and the one
        after it. The device must also have at most MAX_LEAD_S and MAX_LEAD_BYTES of audio left to play.
        """
        allowed = min(MAX_LEAD_S * self._rate, MAX_LEAD_BYTES)
        due = max(self._segment_start, self._sent_bytes - allowed)
        seconds = (due - self._played_at(now)) / self._rate
        return seconds if seconds > _MIN_DELAY_S else 0.0

    def _played_at(self, now: float) -> float:
        return min(self._played_bytes + max(now - self._estimated_at, 0.0) * self._rate, self._sent_bytes)
