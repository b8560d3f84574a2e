"""The errors of calls to the provider. The class says what failed and whether a retry makes sense.

ProviderError (VoicecareError)
├── Unreachable        not sent: connection refused, DNS, TLS, no connection in time      retryable
├── NoFirstByte        sent, but no audio byte within the limit                           retryable
├── Stalled            a pause between two reads that is longer than the limit            retryable
├── ConnectionBroken   the connection broke before or in the body                         retryable
├── NotAudio           a 2xx whose body is empty, HTML, JSON or in another format         retryable
├── AudioTooShort      a 2xx whose body ended before the text can have been spoken        retryable
├── ServerError        5xx, 408, 425, and a 2xx response that cannot be parsed            retryable
├── RateLimited        429 in every form, `code` has the reason                           retryable
├── QuotaExceeded      no credits left: 401 quota_exceeded, 402 insufficient_credits
├── VoiceUnavailable   voice not found, deleted, denied, invalid, unverified, or not in this plan
├── AuthorizationError key, plan, permission, unusual activity: every other 401, 402 and 403
├── TextRejected       400 or 422 that names the text
└── BadRequest         every other 4xx, and redirects: a bug of ours

`retryable` says that the same request can succeed later. `tts/resilience/retry_policy.py` decides what to do.
`code` is the provider's own error code if it sent one, else the code of the class. `status` is the HTTP status, or None
if no headers arrived. An Unreachable request was not sent, so it was not billed. Any other request may be billed.
A message never contains the text of the speech, nor the API key.

`cause` is set where the class does not say enough: what a refusal is about decides who has to act, and what is tried.

`client.py` and `account.py` raise these errors. `error_mapping.error_from_response` creates those for an HTTP status.
"""

from enum import Enum, auto
from typing import ClassVar

from voicecare.core.errors import VoicecareError


class Cause(Enum):
    """The cause of a refusal by the provider, which decides who has to act and what is tried next."""

    VOICE_MISSING = auto()  # of VoiceUnavailable: there is no such voice. Any other refusal may be temporary.
    PLAN = auto()  # of VoiceUnavailable: the plan does not include this voice. Nothing is wrong with the voice.
    KEY = auto()  # of AuthorizationError: the API key is not valid. A missing permission or plan is something else.
    LANGUAGE = auto()  # of BadRequest: the language code. Without it the same text may be spoken.
    CONTEXT = auto()  # of BadRequest: the text before or after. Without it the same text may be spoken.
    MODEL = auto()  # of any 4xx: the model, which another endpoint may accept


class ProviderError(VoicecareError):
    """The base class. Only its subclasses are raised. `message` defaults to the class's `default_message`."""

    code = "provider_error"
    default_message: ClassVar[str] = "The speech provider failed."

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
        region: str | None = None,
        cause: Cause | None = None,
    ) -> None:
        super().__init__(message or self.default_message, code=code)
        self.cause = cause
        self.status = status
        self.request_id = request_id
        self.trace_id = trace_id
        self.region = region

    @property
    def is_unanswered(self) -> bool:
        """Whether the request got no response headers, so that the connection may be dead."""
        return self.status is None and isinstance(self, Unreachable | NoFirstByte | ConnectionBroken)

    @property
    def support_details(self) -> str:
        """The error code, the HTTP status and the request id. The provider's support can find the request with them."""
        return f"{self.code}, HTTP {self.status}, request {self.request_id or self.trace_id}"


class Unreachable(ProviderError):
    code = "unreachable"
    retryable = True
    default_message = "The speech provider could not be reached."


class NoFirstByte(ProviderError):
    code = "no_first_byte"
    retryable = True
    default_message = "The speech provider did not respond in time."


class Stalled(ProviderError):
    code = "stalled"
    retryable = True
    default_message = "The speech provider stopped sending in the middle of its response."


class ConnectionBroken(ProviderError):
    code = "connection_broken"
    retryable = True
    default_message = "The connection to the speech provider broke."


class NotAudio(ProviderError):
    code = "not_audio"
    retryable = True
    default_message = "The speech provider reported success but sent no audio."


class AudioTooShort(ProviderError):
    code = "audio_too_short"
    retryable = True
    default_message = "The speech provider sent less audio than the text needs."


class ServerError(ProviderError):
    code = "server_fault"
    retryable = True
    default_message = "The speech provider reported an internal error."


class RateLimited(ProviderError):
    code = "busy"
    retryable = True
    default_message = "The speech provider limits our requests at the moment."


class QuotaExceeded(ProviderError):
    code = "quota_spent"
    default_message = "The speech provider's quota is used up."


class VoiceUnavailable(ProviderError):
    code = "voice_refused"
    default_message = "The speech provider does not let us use this voice."


class AuthorizationError(ProviderError):
    code = "access_refused"
    default_message = "The speech provider rejected our key, plan or permission."


class TextRejected(ProviderError):
    code = "text_refused"
    default_message = "The speech provider rejected this text."


class BadRequest(ProviderError):
    code = "request_refused"
    default_message = "The speech provider rejected the request as invalid."
