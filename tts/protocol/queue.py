"""The speeches of one connection in playback order. `tts.devices.player` plays them."""

import uuid
from collections import deque
from collections.abc import Callable

from tts.speech import Speech
from tts.states import UtteranceState


class SpeechQueue:
    """The speeches of one connection. One speech plays at a time.

    `deferred` speeches wait for the quota, `waiting` speeches only for their turn. A deferred speech that is released
    waits for its turn again.
    """

    def __init__(self) -> None:
        self.playing: Speech | None = None
        self.waiting: deque[Speech] = deque()
        self.deferred: deque[Speech] = deque()

    def start_next(self) -> Speech | None:
        """Take the next waiting speech and mark it as playing. Call `finish` or `defer` before the next call."""
        self.playing = self.waiting.popleft() if self.waiting else None
        return self.playing

    def start(self, speech: Speech) -> Speech:
        """Mark a delivery from the outbox as playing. Call it only when no speech is waiting."""
        self.playing = speech
        return speech

    def finish(self, speech: Speech) -> None:
        """Mark the speech as no longer playing."""
        if self.playing is speech:
            self.playing = None

    def defer(self, speech: Speech) -> None:
        """Set a speech aside until the quota is back. Speech that needs no quota may play before it."""
        self.finish(speech)
        self.deferred.append(speech)

    def pending_ids(self) -> set[uuid.UUID]:
        """Return the utterance ids of all waiting and deferred speeches."""
        return {speech.utterance_id for speech in (*self.deferred, *self.waiting)}

    def release_deferred(self) -> None:
        """Put the deferred speeches, which waited for the quota, in front of all waiting speeches.

        Their order stays.
        """
        self.waiting.extendleft(reversed(self.deferred))
        self.deferred.clear()

    def defer_released(self) -> None:
        """Undo `release_deferred` for speeches that have not played yet.

        They come before those that were deferred since.
        """
        released = [speech for speech in self.waiting if _is_deferred(speech)]
        self.deferred.extendleft(reversed(released))
        self.waiting = deque(speech for speech in self.waiting if not _is_deferred(speech))

    def next_deferred(self) -> Speech | None:
        """Return the next waiting speech if it was deferred before, otherwise None. The speech stays in the queue."""
        return self.waiting[0] if self.waiting and _is_deferred(self.waiting[0]) else None

    def pop_pending(self) -> list[Speech]:
        """Remove and return the waiting speeches. Deferred speeches stay, even if they were released."""
        self.defer_released()
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting

    def remove(self, predicate: Callable[[Speech], bool]) -> list[Speech]:
        """Remove and return the deferred and waiting speeches that match, in their order."""
        removed = [speech for speech in (*self.deferred, *self.waiting) if predicate(speech)]
        self.deferred = deque(speech for speech in self.deferred if speech not in removed)
        self.waiting = deque(speech for speech in self.waiting if speech not in removed)
        return removed


def _is_deferred(speech: Speech) -> bool:
    return speech.progress.state == UtteranceState.QUEUED
