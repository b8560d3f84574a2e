"""The consent without which no voice is copied: its wording, and the refusal where it is missing."""

from voicecare.core.errors import VoicecareError

WORDING_VERSION = "2026-11"
"""Kept with each consent; goes up with every change of the words."""

WORDING = (
    "I am the person whose voice is in this recording. I agree that a copy of my voice is made from it, by this "
    "service and its speech provider, and that it speaks to the patient named here and to nobody else. I may withdraw "
    "this at any time, without giving a reason; the recording, the copy and all speech made with it are then deleted."
)


class ConsentMissing(VoicecareError):
    """Nobody is named who has consented: nothing is stored."""

    code = "no_consent"
