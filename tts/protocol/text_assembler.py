"""Texts that come in pieces, until they are complete or nobody will speak them any more (the contract, section 1)."""

from tts.protocol.messages import Refused
from tts.protocol.rate_limit import CharacterRate
from tts.speech import Speech

MAX_TEXT = 5000


class Writing:
    """One conversation's. What is written of a text that will not be spoken is swallowed until its `speak.done`."""

    def __init__(self) -> None:
        self._texts: dict[str, Speech | None] = {}  # None: the rest of it is swallowed

    def __contains__(self, speech_id: str) -> bool:
        return speech_id in self._texts

    def begin(self, speech: Speech) -> None:
        self._texts[speech.id] = speech

    def swallow(self, speech_id: str) -> None:
        """Without its beginning the rest of this text must not be spoken."""
        self._texts[speech_id] = None

    def append(self, speech_id: str, piece: str, now: float, rate: CharacterRate) -> None:
        """`now` is a monotonic clock in seconds. Raises Refused; what is too long or too fast ends the text there."""
        speech = self._texts[speech_id]
        if speech is None:
            return
        if speech.script.complete or speech.script.silent(now):
            raise Refused("duplicate_id", "This text was complete: use a new `id`.", speech_id)
        if len(speech.script.text) + len(piece) > MAX_TEXT:
            self._cut_short(speech)
            raise Refused("too_long", f"A text may have {MAX_TEXT} characters in sum; the rest is dropped.", speech_id)
        try:
            rate.take(len(piece), now, speech_id)
        except Refused:
            self._cut_short(speech)
            raise
        speech.script.append(piece)

    def finish(self, speech_id: str) -> None:
        """Its writer is done."""
        speech = self._texts.pop(speech_id, None)
        if speech is not None:
            speech.script.finish()

    def forget(self, speech_id: str) -> None:
        """The id stands for another text from here on."""
        self._texts.pop(speech_id, None)

    def let_go(self, speech: Speech) -> None:
        """It has ended, however. Its writer may still be at work, unless silence ended the text."""
        if self._texts.get(speech.id) is not speech:
            return
        if speech.script.complete:
            del self._texts[speech.id]
        else:
            self._texts[speech.id] = None

    def clear(self) -> None:
        self._texts.clear()

    def _cut_short(self, speech: Speech) -> None:
        """Ends the text where a piece is missing: what follows it would say something else than was meant."""
        speech.script.finish()
        self._texts[speech.id] = None
