"""The base class of all errors that clients may see.

Each error has a stable `code` for programs, a `message` for people that says what to do, and `retryable`: whether the
same request can succeed later without any change. The device protocol and the REST API use the same code and message.
"""

from typing import ClassVar


class VoicecareError(Exception):
    """Base class of the errors. `message` is for people. `code` replaces the code of the class if it is given."""

    code: str = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def as_body(self) -> dict[str, object]:
        """Returns the JSON body of a REST response for this error."""
        return {"detail": self.message, "code": self.code}


class IdempotencyConflict(VoicecareError):
    """A user has sent an `Idempotency-Key` again, with another request. REST status 409."""

    code = "idempotency_conflict"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key came with another request before: use a new one.")
