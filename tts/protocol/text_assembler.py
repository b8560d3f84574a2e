"""Assembles texts that arrive in pieces (docs/protocol.md, `speak.delta`)."""

from tts.protocol.messages import ProtocolError
from tts.protocol.rate_limit import SlidingWindowRateLimiter
from tts.speech import Speech

MAX_TEXT_LENGTH = 5000


class TextAssembler:
    """The incomplete texts of one conversation.

    After a piece was rejected, or after the speech has ended, later pieces of the text are ignored until `speak.done`.
    Otherwise a text would be spoken with a gap in it.
    """

    def __init__(self) -> None:
        self._texts: dict[str, Speech | None] = {}  # None: later pieces are ignored

    def __contains__(self, speech_id: str) -> bool:
        return speech_id in self._texts

    def start(self, speech: Speech) -> None:
        """Add later pieces with this id to the speech."""
        self._texts[speech.id] = speech

    def ignore_rest(self, speech_id: str) -> None:
        """Ignore all pieces with this id. The first one was rejected."""
        self._texts[speech_id] = None

    def append(self, speech_id: str, piece: str, now: float, rate_limiter: SlidingWindowRateLimiter) -> None:
        """Add a piece at `now` (monotonic seconds).

        Raises ProtocolError if the text was complete, is too long, or comes too fast. In the last two cases the text
        ends before this piece.
        """
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
            rate_limiter.acquire(len(piece), now, speech_id)
        except ProtocolError:
            self._truncate(speech)
            raise
        speech.text_stream.append(piece)

    def finish(self, speech_id: str) -> None:
        """Complete the text."""
        speech = self._texts.pop(speech_id, None)
        if speech is not None:
            speech.text_stream.finish()

    def discard(self, speech_id: str) -> None:
        """Stop ignoring this id. It now belongs to a new text."""
        self._texts.pop(speech_id, None)

    def detach(self, speech: Speech) -> None:
        """Ignore later pieces of a speech that has ended. The device may still send some if the text is incomplete."""
        if self._texts.get(speech.id) is not speech:
            return
        if speech.text_stream.complete:
            del self._texts[speech.id]
        else:
            self._texts[speech.id] = None

    def clear(self) -> None:
        self._texts.clear()

    def _truncate(self, speech: Speech) -> None:
        speech.text_stream.finish()
        self._texts[speech.id] = None
