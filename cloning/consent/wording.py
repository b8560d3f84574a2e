"""The wording of the consent that every voice clone needs, and the error if the consent is missing."""

from voicecare.core.errors import VoicecareError

WORDING_VERSION = "2026-11"
"""Stored with each consent. Every change of the wording needs a new version."""

WORDING = (
    "I am the person whose voice is in this recording. I agree that a copy of my voice is made from it, by this "
    "service and its speech provider, and that it speaks to the patient named here and to nobody else. I may withdraw "
    "this at any time, without giving a reason; the recording, the copy and all speech made with it are then deleted."
)


class ConsentMissing(VoicecareError):
    """The consent is missing, or the name of the person who consented. Nothing of the upload is stored.

    REST status 400.
    """

    code = "no_consent"
