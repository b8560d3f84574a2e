"""Reasons why a voice clone is not created or not removed. Their messages explain to clinicians what to do. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from voicecare.providers.errors import AuthorizationError, ProviderError, QuotaExceeded, RateLimited

_PLAN_WITHOUT_CLONING = (
    "The plan at the speech provider does not include voice clones. Ask your administrator to change the plan, then "
    "retry."
)
_BAD_RECORDING = (
    "The speech provider cannot use this recording. Record it again: one person who speaks in a quiet room for one to "
    "three minutes. Then upload the new recording."
)
_MESSAGES: Mapping[str, str] = {
    "voice_limit_reached": (
        "The account at the speech provider has no room for another voice. Withdraw a voice clone that is not needed, "
        "or ask your administrator for a larger plan. Then retry."
    ),
    "voice_add_edit_limit_reached": (
        "The account at the speech provider may create no more new voices in this billing period. Retry in the next "
        "period, or ask your administrator for a larger plan."
    ),
    "can_not_use_instant_voice_cloning": _PLAN_WITHOUT_CLONING,
    "ivc_not_permitted": _PLAN_WITHOUT_CLONING,
    **dict.fromkeys(
        ["invalid_audio", "invalid_audio_format", "invalid_file_type", "audio_too_short", "audio_too_long"],
        _BAD_RECORDING,
    ),
    "redirect": (
        "The address of the speech provider leads to another one, so the recording was not sent. Ask your "
        "administrator to check the address of the provider in the settings of this server, then retry."
    ),
    "sample_gone": "The recording no longer exists. Upload it again.",
    "storage_unavailable": "The storage of recordings does not answer.",
    "interrupted": "All attempts were interrupted. Retry. If that does not help, contact your administrator.",
    "verification_required": (
        "The speech provider must verify the owner of this voice before it can be used. Ask your administrator to do "
        "this on the provider's site. Until then the patient hears the previous voice."
    ),
    "voice_left": "The voice still exists at the speech provider. Its removal is repeated.",
    "sample_left": "The recording still exists. Its removal is repeated.",
    "sound_left": "Cached speech in this voice still exists. It is being removed.",
}


@dataclass(frozen=True, slots=True)
class CloneFailure:
    """Why an attempt to create or to remove a voice clone failed. `message` is for clinicians.

    `retryable` is true if a later attempt can succeed although nobody has changed anything.
    """

    code: str
    message: str
    retryable: bool = False

    @classmethod
    def from_code(cls, code: str, *, retryable: bool = False) -> Self:
        """Returns the failure with the message for this code. Raises KeyError for a code without a message."""
        return cls(code, _MESSAGES[code], retryable)

    @classmethod
    def from_error(cls, error: ProviderError) -> Self:
        """Returns the failure for an error of the provider.

        If there is no message for the code of the error, the failure has a general message for the class of the error.
        """
        if error.code in _MESSAGES:
            message = _MESSAGES[error.code]
        elif isinstance(error, RateLimited):
            message = (
                "The speech provider is busy with other requests. Nothing is wrong with the recording. Retry later."
            )
        elif error.retryable:
            message = "The speech provider does not answer correctly. Nothing is wrong with the recording."
        elif isinstance(error, QuotaExceeded):
            message = "The speech provider's credits are used up. Ask your administrator to buy credits, then retry."
        elif isinstance(error, AuthorizationError):
            message = "The speech provider refuses this server's key or plan. Contact your administrator, then retry."
        else:
            message = f"The speech provider refuses the recording ({error.code}). "
            message += "Upload another recording, or contact your administrator."
        return cls(error.code, message, error.retryable)
