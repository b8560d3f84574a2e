"""Why a clone was not made, in words that a clinician can act on. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from voicecare.providers.errors import AuthorizationError, ProviderError, QuotaExceeded

_PLAN_WITHOUT_CLONING = (
    "The plan at the speech provider does not include copying voices. Have your administrator change the plan, then "
    "retry."
)
_BAD_RECORDING = (
    "The speech provider cannot use this recording. Record it again, one person speaking in a quiet room for one to "
    "three minutes, and upload that."
)
_MESSAGES: Mapping[str, str] = {
    "voice_limit_reached": (
        "The account at the speech provider has no room for another voice. Withdraw one that nobody needs any more, or "
        "have your administrator raise the plan; then retry."
    ),
    "voice_add_edit_limit_reached": (
        "The account at the speech provider may make no more new voices in this billing period. Retry in the next "
        "one, or have your administrator raise the plan."
    ),
    "can_not_use_instant_voice_cloning": _PLAN_WITHOUT_CLONING,
    "ivc_not_permitted": _PLAN_WITHOUT_CLONING,
    **dict.fromkeys(
        ["invalid_audio", "invalid_audio_format", "invalid_file_type", "audio_too_short", "audio_too_long"],
        _BAD_RECORDING,
    ),
    "sample_gone": "The recording is not there any more. Upload it again.",
    "storage_unavailable": "The place where recordings are kept does not answer.",
    "interrupted": "It was interrupted again and again. Retry, and if that does not help, tell your administrator.",
    "verification_required": (
        "The speech provider wants the owner of this voice to be verified before it may speak: have your administrator "
        "do that on the provider's site. Until then the patient hears the former voice."
    ),
    "voice_left": "The voice is still there at the speech provider. It is removed again.",
    "sample_left": "The recording is still there. It is removed again.",
    "sound_left": "Speech in this voice is still kept. It is being removed.",
}


@dataclass(frozen=True, slots=True)
class CloneFailure:
    """`retryable`: the same may succeed later, without anybody's doing."""

    code: str
    message: str
    retryable: bool = False

    @classmethod
    def from_code(cls, code: str, *, retryable: bool = False) -> Self:
        return cls(code, _MESSAGES[code], retryable)

    @classmethod
    def from_error(cls, error: ProviderError) -> Self:
        if error.code in _MESSAGES:
            message = _MESSAGES[error.code]
        elif error.retryable:
            message = "The speech provider does not answer as it should. Nothing is wrong with the recording."
        elif isinstance(error, QuotaExceeded):
            message = "The speech provider's credits are used up. Have your administrator buy some, then retry."
        elif isinstance(error, AuthorizationError):
            message = "The speech provider refuses this server's key or plan. Tell your administrator, then retry."
        else:
            message = f"The speech provider refuses the recording ({error.code}). "
            message += "Upload another one, or tell your administrator."
        return cls(error.code, message, error.retryable)
