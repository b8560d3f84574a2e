"""Every way in which the provider can fail us, with the verdict set where the failure is seen.

ProviderError (VoicecareError)
├── Unreachable        never sent: refused, DNS, TLS, no connection in time        retryable
├── NoFirstByte        sent, no audio byte within the limit                        retryable
├── Stalled            a gap between two reads beyond the limit                    retryable
├── ConnectionBroken   the connection broke before or in the body                  retryable
├── NotAudio           a 2xx whose body is empty, HTML or JSON                     retryable
├── ServerError        5xx, 408, 425, and a 2xx reply that cannot be understood    retryable
├── RateLimited        429 in every form; `code` keeps which                       retryable
├── QuotaExceeded      the credits are gone: 401 quota_exceeded, 402 insufficient_credits
├── VoiceUnavailable   voice not found, deleted, denied, invalid, unverified, not for this plan
├── AuthorizationError key, plan, permission, unusual activity: 401, 402 and 403 otherwise
├── TextRejected       400 or 422 that names the text
└── BadRequest         every other 4xx, and redirects: a defect of ours

`retryable` says that the same request may succeed as it is; what to do next is `tts/resilience/retry_policy.py`'s
decision.
`code` is the provider's own word where it gave one, else the class's. A message never holds the text that was to be
spoken, nor the key. `status` is the HTTP status if headers came, so None means: no answer was seen. Whether such a
request may have been billed is in the class: Unreachable was never sent, every other may have been.

Raised by `client.py` and `account.py`; `error_mapping.error_from_response` makes those that
stand on an HTTP error reply.
"""

from typing import ClassVar

from voicecare.core.errors import VoicecareError


class ProviderError(VoicecareError):
    """The base; only its subclasses are raised. `message` defaults to the class's own sentence."""

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
        """What the provider's support needs to find it: their code, the HTTP status, their id."""
        return f"{self.code}, HTTP {self.status}, request {self.request_id or self.trace_id}"


class Unreachable(ProviderError):
    code = "unreachable"
    retryable = True
    default_message = "The speech provider could not be reached."


class NoFirstByte(ProviderError):
    code = "no_first_byte"
    retryable = True
    default_message = "The speech provider sent nothing within the limit."


class Stalled(ProviderError):
    code = "stalled"
    retryable = True
    default_message = "The speech provider stopped sending in the middle of its reply."


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
    default_message = "The speech provider reported a fault of its own."


class RateLimited(ProviderError):
    code = "busy"
    retryable = True
    default_message = "The speech provider has no capacity for us at the moment."


class QuotaExceeded(ProviderError):
    code = "quota_spent"
    default_message = "The speech provider's quota is spent."


class VoiceUnavailable(ProviderError):
    code = "voice_refused"
    default_message = "The speech provider does not let us use this voice."


class AuthorizationError(ProviderError):
    code = "access_refused"
    default_message = "The speech provider refuses our key, plan or permission."


class TextRejected(ProviderError):
    code = "text_refused"
    default_message = "The speech provider refuses this text."


class BadRequest(ProviderError):
    code = "request_refused"
    default_message = "The speech provider refused the request as malformed."
