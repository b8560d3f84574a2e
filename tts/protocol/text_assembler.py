"""Texts that come in pieces, until they are complete or nobody will speak them any more (the contract, section 1)."""

from tts.protocol.messages import ProtocolError
from tts.protocol.rate_limit import SlidingWindowRateLimiter
from tts.speech import Speech

MAX_TEXT_LENGTH = 5000


class TextAssembler:
    """One conversation's. What is written of a text that will not be spoken is swallowed until its `speak.done`."""

    def __init__(self) -> None:
        self._texts: dict[str, Speech | None] = {}  # None: the rest of it is swallowed

    def __contains__(self, speech_id: str) -> bool:
        return speech_id in self._texts

    def start(self, speech: Speech) -> None:
        self._texts[speech.id] = speech

    def ignore_rest(self, speech_id: str) -> None:
        """Without its beginning the rest of this text must not be spoken."""
        self._texts[speech_id] = None

    def append(self, speech_id: str, piece: str, now: float, rate: SlidingWindowRateLimiter) -> None:
        """`now` is a monotonic clock in seconds. Raises ProtocolError; a piece that is refused ends the text there."""
        speech = self._texts[speech_id]
        if speech is None:
            return
        if speech.text_stream.complete or speech.text_stream.is_idle(now):
            raise ProtocolError("duplicate_id", "This text was complete: use a new `id`.", speech_id)
        if len(speech.text_stream.text) + len(piece) > MAX_TEXT_LENGTH:
            self._truncate(speech)
            raise ProtocolError(
                "too_long", f"A text may have {MAX_TEXT_LENGTH} characters in sum; the rest is dropped.", speech_id
            )
        try:
            rate.acquire(len(piece), now, speech_id)
        except ProtocolError:
            self._truncate(speech)
            raise
        speech.text_stream.append(piece)

    def finish(self, speech_id: str) -> None:
        """Its writer is done."""
        speech = self._texts.pop(speech_id, None)
        if speech is not None:
            speech.text_stream.finish()

    def discard(self, speech_id: str) -> None:
        """The id stands for another text from here on."""
        self._texts.pop(speech_id, None)

    def detach(self, speech: Speech) -> None:
        """It has ended, however. Its writer may still be at work, unless silence ended the text."""
        if self._texts.get(speech.id) is not speech:
            return
        if speech.text_stream.complete:
            del self._texts[speech.id]
        else:
            self._texts[speech.id] = None

    def clear(self) -> None:
        self._texts.clear()

    def _truncate(self, speech: Speech) -> None:
        """Ends the text where a piece is missing: what follows it would say something else than was meant."""
        speech.text_stream.finish()
        self._texts[speech.id] = None
