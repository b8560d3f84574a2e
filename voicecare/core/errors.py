"""The base of every error that a client may be told about.

An error carries its own verdict: `code` (the contract's word, stable), `message` (for people, says what to do) and
`retryable` (whether the same request can succeed without anybody changing anything). The WebSocket and REST render it
through the two methods here, so that both speak of the same trouble in the same words.
"""

from typing import ClassVar


class VoicecareError(Exception):
    """Raised with a message for people; `code` is the class's own unless the raiser knows better."""

    code: str = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def as_frame(self, speech_id: str | None = None) -> dict[str, str]:
        """The WebSocket's `error` frame."""
        frame = {"type": "error", "code": self.code, "message": self.message}
        return frame if speech_id is None else {**frame, "id": speech_id}

    def as_body(self) -> dict[str, str]:
        """The body of a REST error."""
        return {"detail": self.message, "code": self.code}
