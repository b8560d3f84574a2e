"""What one device was sent and has played, over all speeches of its connection. Pure: the clock is passed in.

The server has no other knowledge of a device's playback than its own estimate and the device's `progress`. Three things
are decided by it: how much audio fits into the buffer of a small device (`buffer_ms`), how much of a message was heard,
and whether an acknowledgement can be true. All times are seconds of one monotonic clock.
"""

import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

KEPT_SPEECHES = 8  # playback lags behind by a few speeches at most
FILL = 0.8  # of the buffer; the rest is for a device that begins to play late, or whose clock is slower
FIRST_PART_FILL = 0.9  # for the first audio of a speech, so that the speech before does not delay its start
FIRST_PART_S = 0.05
MAX_PART_S = 0.2  # audio for a full buffer is sent in parts of this length
END_TOLERANCE_S = 0.25  # devices report twice a second, so the last report is seldom the end
EARLIEST_ACK = 0.5  # of the length of the sound: an `ack` before is doubtful, also on a device that plays faster


@dataclass(slots=True, eq=False)
class _Sound:
    """The audio of one speech. `start_s` and `length_s` are its place among all audio that the device has to play.

    `sent_s` is its whole length, also after the device has discarded a part of it.
    """

    speech_id: str
    utterance_id: uuid.UUID
    start_s: float
    length_s: float = 0.0
    sent_s: float = 0.0
    first_sent_at: float | None = None
    reported_s: float = 0.0
    saved_s: float = 0.0
    has_ended: bool = False

    @property
    def is_reported_to_its_end(self) -> bool:
        return self.has_ended and self.reported_s >= self.sent_s - END_TOLERANCE_S


class Playback:
    """Estimates the playback of one device.

    Playback is assumed to begin with the first audio and to run in real time. It pauses when all audio is played and
    continues with the next audio. `progress` corrects the estimate. `save` is called with an utterance and the
    milliseconds of it that were heard, a few times for each speech at most.
    """

    def __init__(self, save: Callable[[uuid.UUID, int], None]) -> None:
        self.buffer_s: float | None = None
        """The length of audio that the device can hold. None if the device did not say."""
        self._save = save
        self._sounds: deque[_Sound] = deque()
        self._has_progress = False
        self._sent_s = 0.0
        self._played_s = 0.0  # the estimate for the time `_estimated_at`
        self._estimated_at = 0.0
        self._reported_s = 0.0  # the furthest point that the device has reported

    # Speeches

    def begin(self, speech_id: str, utterance_id: uuid.UUID) -> None:
        """Note that the next audio belongs to this speech."""
        if len(self._sounds) == KEPT_SPEECHES:
            self._save_heard(self._sounds.popleft())
        self._sounds.append(_Sound(speech_id, utterance_id, self._sent_s))

    def record_sent(self, seconds: float, now: float) -> None:
        """Count audio of the current speech that was sent at `now`."""
        self._advance(now)
        sound = self._sounds[-1]
        if sound.first_sent_at is None:
            sound.first_sent_at = now
        sound.length_s += seconds
        sound.sent_s += seconds
        self._sent_s += seconds

    def end(self, speech_id: str, now: float, *, is_discarded: bool) -> None:
        """Note that no more audio of this speech follows.

        `is_discarded` means that it was interrupted, so that the device plays no more of it.
        """
        if (sound := self._find(speech_id)) is None:
            return
        sound.has_ended = True
        if is_discarded:
            self.discard(lambda key: key == speech_id, now)
        if is_discarded or sound.is_reported_to_its_end:
            self._save_heard(sound)

    def discard(self, is_discarded: Callable[[str], bool], now: float) -> None:
        """Note that the device plays no more of these speeches. `is_discarded` gets the id of a speech."""
        self._advance(now)
        removed_s = 0.0
        for sound in self._sounds:
            sound.start_s -= removed_s
            if is_discarded(sound.speech_id):
                left_s = max(0.0, sound.start_s + sound.length_s - max(sound.start_s, self._played_s))
                sound.length_s -= left_s
                removed_s += left_s
        self._sent_s -= removed_s

    # Reports of the device

    def record_progress(self, speech_id: str, ms: int, now: float) -> None:
        """Correct the estimate: the device has played `ms` milliseconds of this speech.

        The position is limited to the audio that was sent, and never goes back.
        """
        if (sound := self._find(speech_id)) is None:
            return
        self._has_progress = True
        for earlier in self._sounds:
            if earlier is sound:
                break
            self._save_heard(earlier)
        sound.reported_s = max(sound.reported_s, min(ms, sound.sent_s * 1000) / 1000)
        position = sound.start_s + min(sound.reported_s, sound.length_s)
        if position >= self._reported_s:
            self._reported_s = self._played_s = position
            self._estimated_at = now
        if sound.is_reported_to_its_end:
            self._save_heard(sound)

    def is_doubtful_ack(self, speech_id: str, now: float) -> bool:
        """Whether the device acknowledges a speech at `now` that it cannot have played to its end.

        Only a device that knows about playback is doubted: it has sent `buffer_ms` or `progress`. Any other device may
        be one that acknowledges what it has received.
        """
        sound = self._find(speech_id)
        if sound is None or sound.first_sent_at is None or (self.buffer_s is None and not self._has_progress):
            return False
        return not sound.has_ended or now - sound.first_sent_at < sound.sent_s * EARLIEST_ACK

    def save_all(self) -> None:
        """Save how much was heard of each speech. Call it when the conversation or the connection ends."""
        for sound in self._sounds:
            self._save_heard(sound)

    def _save_heard(self, sound: _Sound) -> None:
        if sound.reported_s > sound.saved_s:
            sound.saved_s = sound.reported_s
            self._save(sound.utterance_id, round(sound.reported_s * 1000))

    # The buffer of the device

    def buffered_seconds(self, now: float) -> float:
        """Return the seconds of audio that the device has not played yet."""
        return self._sent_s - self._played_at(now)

    def room_s(self, now: float, *, is_first: bool) -> float:
        """Return the seconds of audio that the device has room for. Infinite if it did not say how much it can hold.

        `is_first` is for the first audio of a speech, of which a short part is allowed earlier.
        """
        if self.buffer_s is None:
            return float("inf")
        buffered_s = self.buffered_seconds(now)
        room_s = self.buffer_s * FILL - buffered_s
        if is_first and room_s < FIRST_PART_S:
            room_s = min(FIRST_PART_S, self.buffer_s * FIRST_PART_FILL - buffered_s)
        return max(0.0, room_s)

    @property
    def part_s(self) -> float:
        """The length of the smallest part of a frame that is worth sending."""
        return MAX_PART_S if self.buffer_s is None else min(MAX_PART_S, self.buffer_s / 8)

    def _find(self, speech_id: str) -> _Sound | None:
        return next((sound for sound in reversed(self._sounds) if sound.speech_id == speech_id), None)

    def _advance(self, now: float) -> None:
        self._played_s, self._estimated_at = self._played_at(now), max(now, self._estimated_at)

    def _played_at(self, now: float) -> float:
        return min(self._played_s + max(now - self._estimated_at, 0.0), self._sent_s)
