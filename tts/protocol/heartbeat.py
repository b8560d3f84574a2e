"""Decides when a device is pinged and when it counts as gone. Pure: the clock is passed in.

A device that plays while it reads answers a ping only when it has played the audio in front of the ping. That may be
minutes of audio, in buffers that the server cannot see. So pings are spread over the audio, and the server expects each
answer when the audio between the previous ping and this one can have been played. So the amount of audio in the buffers
does not matter, nor does a wrong clock of the device, nor a playback that starts late.

A proxy does not answer pings, so a device that is gone behind a proxy is noticed as well.
"""

from collections import deque
from dataclasses import dataclass

AUDIO_BETWEEN_PINGS = 0.25
"""As a share of the interval, in seconds of audio. A smaller one finds a device that is gone sooner: with 20 s and 30 s
it has stopped answering for at most 20 s + 5 s + 30 s. A reply that arrives in one piece may add some seconds, because
no ping can be put inside of a frame."""


@dataclass(frozen=True, slots=True)
class _Ping:
    payload: bytes
    sent_at: float
    audio_s: float  # between the previous ping and this one


class Heartbeat:
    """The pings of one connection.

    A device is pinged every `interval_s` seconds, and more often while it gets audio. A device may read a ping only
    when it has played the audio before it, so its answer is expected after that audio. It counts as gone if its answer
    is `timeout_s` seconds later than expected, and no other frame has come for `timeout_s` seconds. All parameters
    named `now` are seconds of one monotonic clock.
    """

    def __init__(self, interval_s: float, timeout_s: float, now: float) -> None:
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._pending: deque[_Ping] = deque()
        self._sent = 0
        self._pinged_at = now
        self._audio_s = 0.0  # sent since the latest ping
        self._reached_at = now  # when the latest answer came
        self._frame_at = now  # when the latest frame of any kind came

    def is_ping_due(self, now: float) -> bool:
        """Whether a ping must be sent now because of the time since the last ping."""
        return now - self._pinged_at >= self._interval_s

    def is_ping_due_before_audio(self, now: float) -> bool:
        """Whether a ping must be sent in front of the audio that is sent next."""
        return max(self._audio_s, now - self._pinged_at) >= self._interval_s * AUDIO_BETWEEN_PINGS

    def next_ping(self, now: float) -> bytes:
        """Record that a ping is sent now, and return its payload of 8 bytes."""
        self._sent += 1
        ping = _Ping(self._sent.to_bytes(8), now, self._audio_s)
        self._pending.append(ping)
        self._pinged_at, self._audio_s = now, 0.0
        return ping.payload

    def record_audio(self, seconds: float) -> None:
        """Record that audio of this playing time was sent."""
        self._audio_s += seconds

    def record_frame(self, now: float) -> None:
        """Record that the device has sent a frame of any kind."""
        self._frame_at = now

    def record_pong(self, payload: bytes, now: float) -> None:
        """Record which ping the device has answered. Call `record_frame` first: a pong is a frame, too.

        A pong may answer any ping. It then also answers all earlier pings (RFC 6455, 5.5.3).
        """
        if any(ping.payload == payload for ping in self._pending):
            while self._pending.popleft().payload != payload:
                pass
            self._reached_at = now

    def is_gone(self, now: float) -> bool:
        """Whether the device counts as gone, because it has not answered a ping in time."""
        return bool(self._pending) and now >= self._gone_at()

    def next_check_at(self) -> float:
        """Return the time of the next ping, or the time at which the device counts as gone if it is earlier."""
        ping_at = self._pinged_at + self._interval_s
        return min(ping_at, self._gone_at()) if self._pending else ping_at

    def _gone_at(self) -> float:
        oldest = self._pending[0]
        expected_at = max(oldest.sent_at, self._reached_at + oldest.audio_s)
        return max(expected_at, self._frame_at) + self._timeout_s
