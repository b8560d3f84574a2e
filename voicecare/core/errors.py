"""The base class of all errors that clients may see.

Each error has a stable `code` for programs, a `message` for people that says what to do, and `retryable`: whether the
same request can succeed later without any change. The device protocol and the REST API use the same code and message.
"""

from typing import ClassVar


class VoicecareError(Exception):
    """`message` is for people. `code` replaces the code of the class."""

    code: str = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def as_frame(self, speech_id: str | None = None) -> dict[str, str]:
        """The `error` frame of the device protocol."""
        frame = {"type": "error", "code": self.code, "message": self.message}
        return frame if speech_id is None else {**frame, "id": speech_id}

    def as_body(self) -> dict[str, str]:
        """The body of a REST error response."""
        return {"detail": self.message, "code": self.code}
