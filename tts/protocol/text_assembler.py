"""Assembles texts that a device sends in pieces (docs/protocol.md, `speak.delta`)."""

from tts.protocol.messages import ProtocolError
from tts.protocol.rate_limit import SlidingWindowRateLimiter
from tts.speech import Speech

MAX_TEXT_LENGTH = 5000
MAX_REJECTED_IDS = 1000  # remembered of texts whose first piece was rejected; a device may invent any number of them


class TextAssembler:
    """The incomplete texts of one conversation, by speech id.

    After a piece was rejected, or after the speech has ended, later pieces of the text are ignored until `speak.done`.
    Otherwise a text would be spoken with a gap in it.
    """

    def __init__(self) -> None:
        self._texts: dict[str, Speech | None] = {}  # None: later pieces are ignored
        self._halves: dict[str, str] = {}  # by id: the high surrogate at the end of the latest piece
        self._rejected: dict[str, None] = {}  # ids of texts that never began; later pieces are ignored, too

    def __contains__(self, speech_id: str) -> bool:
        return speech_id in self._texts or speech_id in self._rejected

    def half(self, speech_id: str) -> str:
        """Return the half of a character (a high surrogate) at the end of the text so far, or ""."""
        return self._halves.get(speech_id, "")

    def start(self, speech: Speech, half: str) -> None:
        """Add later pieces with this id to the speech.

        `half` is the half of a character at the end of its first piece, or "".
        """
        self._texts[speech.id] = speech
        self._set_half(speech.id, half)

    def append(self, speech_id: str, piece: str, half: str, now: float, rate_limiter: SlidingWindowRateLimiter) -> None:
        """Add a piece at `now` (monotonic seconds). `half` is the half of a character at the end of the piece, or "".

        Raises ProtocolError if the text was complete, is too long, or comes too fast.
        """
        self._set_half(speech_id, half)
        speech = self._texts.get(speech_id)
        if speech is None:
            return
        if speech.text_stream.complete or speech.text_stream.is_idle(now):
            raise ProtocolError("duplicate_id", "This text was complete: use a new `id`.", speech_id)
        if len(speech.text_stream.text) + len(piece) > MAX_TEXT_LENGTH:
            raise ProtocolError(
                "too_long", f"A text may have {MAX_TEXT_LENGTH} characters in sum; the rest is dropped.", speech_id
            )
        rate_limiter.acquire(len(piece), now, speech_id)
        speech.text_stream.append(piece)

    def end(self, speech_id: str) -> None:
        """End the text because a piece was rejected. The text before that piece is spoken, later pieces are ignored."""
        self._halves.pop(speech_id, None)
        if speech_id not in self._texts:
            self._rejected[speech_id] = None
            if len(self._rejected) > MAX_REJECTED_IDS:
                self.discard(next(iter(self._rejected)))
        elif (speech := self._texts[speech_id]) is not None:
            speech.text_stream.finish()
            self._texts[speech_id] = None

    def end_all(self) -> None:
        """End all texts, because a piece was rejected that may belong to any of them."""
        for speech_id in self._texts:
            self.end(speech_id)

    def finish(self, speech_id: str) -> None:
        """Complete the text. Raises ProtocolError if it ends with half of a character.

        The text is spoken without that half.
        """
        half = self.half(speech_id)
        self.discard(speech_id)
        speech = self._texts.pop(speech_id, None)
        if speech is None:
            return
        speech.text_stream.finish()
        if half:
            raise ProtocolError("bad_message", "The text ended with a lone surrogate.", speech_id)

    def discard(self, speech_id: str) -> None:
        """Forget that the first piece of the text with this id was rejected. A new text may have this id."""
        self._rejected.pop(speech_id, None)
        self._halves.pop(speech_id, None)

    def detach(self, speech: Speech) -> None:
        """Ignore later pieces of a speech that has ended. The device may still send some if the text is incomplete."""
        if self._texts.get(speech.id) is not speech:
            return
        self._halves.pop(speech.id, None)
        if speech.text_stream.complete:
            del self._texts[speech.id]
        else:
            self._texts[speech.id] = None

    def clear(self) -> None:
        self._texts.clear()
        self._halves.clear()
        self._rejected.clear()

    def _set_half(self, speech_id: str, half: str) -> None:
        if half:
            self._halves[speech_id] = half
        else:
            self._halves.pop(speech_id, None)
