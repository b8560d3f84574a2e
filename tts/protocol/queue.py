"""The speeches of one connection in playback order. `tts.devices.player` plays them."""

from collections import deque
from collections.abc import Callable

from tts.speech import Speech


class SpeechQueue:
    """One speech plays at a time. `deferred` speeches wait for the quota, `waiting` ones only for their turn."""

    def __init__(self) -> None:
        self.playing: Speech | None = None
        self.waiting: deque[Speech] = deque()
        self.deferred: deque[Speech] = deque()

    def start_next(self) -> Speech | None:
        """Take the next speech and mark it as playing. Call `finish` or `defer` before the next call."""
        self.playing = self.waiting.popleft() if self.waiting else None
        return self.playing

    def start(self, speech: Speech) -> Speech:
        """Mark a delivery from the outbox as playing. Call it only when no speech waits here."""
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

    def release_deferred(self) -> None:
        """Put the deferred speeches, in their order, in front of all waiting ones."""
        self.waiting.extendleft(reversed(self.deferred))
        self.deferred.clear()

    def pop_pending(self) -> list[Speech]:
        """Remove and return the waiting speeches. Deferred ones stay, also those that were released again."""
        self.deferred.extend(speech for speech in self.waiting if speech.progress.state == "queued")
        waiting = [speech for speech in self.waiting if speech.progress.state != "queued"]
        self.waiting.clear()
        return waiting

    def remove(self, predicate: Callable[[Speech], bool]) -> list[Speech]:
        """Remove and return the deferred and waiting speeches that match, in their order."""
        removed = [speech for speech in (*self.deferred, *self.waiting) if predicate(speech)]
        self.deferred = deque(speech for speech in self.deferred if speech not in removed)
        self.waiting = deque(speech for speech in self.waiting if speech not in removed)
        return removed
