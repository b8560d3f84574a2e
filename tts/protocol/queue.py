"""The speeches of one connection, in the order in which they are said: what plays, what waits, what the quota holds.

Pure bookkeeping: who speaks them is `tts.devices.connection`.
"""

from collections import deque
from collections.abc import Callable

from tts.speech import Speech


class SpeechQueue:
    """One plays at a time. `held` are those that wait for the quota; they come before all others when it lets go."""

    def __init__(self) -> None:
        self.playing: Speech | None = None
        self.waiting: deque[Speech] = deque()
        self.deferred: deque[Speech] = deque()

    def start_next(self) -> Speech | None:
        """Takes the next speech and calls it playing; `over()` or `hold()` must follow before the next call."""
        self.playing = self.waiting.popleft() if self.waiting else None
        return self.playing

    def start(self, speech: Speech) -> Speech:
        """This one plays now, out of turn: it comes from the outbox, and nothing waits here."""
        self.playing = speech
        return speech

    def finish(self, speech: Speech) -> None:
        """The speech has ended, however."""
        if self.playing is speech:
            self.playing = None

    def defer(self, speech: Speech) -> None:
        """Its turn came and the quota is spent: it waits for that, and lets others pass that need no quota."""
        self.finish(speech)
        self.deferred.append(speech)

    def release_deferred(self) -> None:
        """The quota holds nothing back any more: in the order in which they came, and before all that came later."""
        self.waiting.extendleft(reversed(self.deferred))
        self.deferred.clear()

    def pop_pending(self) -> list[Speech]:
        """Empties the line of what waits its turn and returns it; what is held stays."""
        self.deferred.extend(speech for speech in self.waiting if speech.progress.state == "queued")
        waiting = [speech for speech in self.waiting if speech.progress.state != "queued"]
        self.waiting.clear()
        return waiting

    def remove(self, meant: Callable[[Speech], bool]) -> list[Speech]:
        """Takes out all that wait or are held and are meant, in their order."""
        dropped = [speech for speech in (*self.deferred, *self.waiting) if meant(speech)]
        self.deferred = deque(speech for speech in self.deferred if speech not in dropped)
        self.waiting = deque(speech for speech in self.waiting if speech not in dropped)
        return dropped
