"""The errors of calls to the provider. The class says what failed and whether a retry makes sense.

ProviderError (VoicecareError)
├── Unreachable        not sent: connection refused, DNS, TLS, no connection in time      retryable
├── NoFirstByte        sent, but no audio byte within the limit                           retryable
├── Stalled            a pause between two reads that is longer than the limit            retryable
├── ConnectionBroken   the connection broke before or in the body                         retryable
├── NotAudio           a 2xx whose body is empty, HTML or JSON                            retryable
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

`client.py` and `account.py` raise these errors. `error_mapping.error_from_response` creates those for an HTTP status.
"""

from typing import ClassVar

from voicecare.core.errors import VoicecareError


class ProviderError(VoicecareError):
    """The base class. Only subclasses are raised. `message` defaults to `default_message`."""

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
    ) -> None:
        super().__init__(message or self.default_message, code=code)
        self.status = status
        self.request_id = request_id
        self.trace_id = trace_id

    @property
    def support_details(self) -> str:
        """The data that the provider's support needs to find the request: its code, HTTP status and id."""
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
