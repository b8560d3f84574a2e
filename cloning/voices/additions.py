"""Adds a stock voice by its id at the provider, after the provider was asked for it."""

from cloning.gateway import provider_voices
from cloning.voices import facts
from usage.alerts import lost_voices
from voicecare.core.errors import VoicecareError
from voicecare.patients.models import Voice
from voicecare.providers.errors import ProviderError

LOOKUP_TIMEOUT_S = (2.0, 5.0)  # connect, read; somebody waits for the page


class VoiceNotAdded(VoicecareError):
    """The voice was not added. `message` says why, for administrators."""

    code = "voice_not_added"


def add_stock_voice(provider_id: str) -> Voice:
    """Adds the voice with this id, with everything that the provider says of it. Raises VoiceNotAdded.

    A clone is refused, because it is the voice of a person who has consented to speak to one patient.
    """
    _refuse_known(provider_id)
    try:
        with provider_voices.account_client(LOOKUP_TIMEOUT_S) as client:
            found = lost_voices.find(client, provider_id)
    except ProviderError as error:
        raise VoiceNotAdded(f"The voice could not be checked. {provider_voices.in_words(error)}") from error
    if found is None:
        raise VoiceNotAdded("The speech provider has no voice with this id. Copy the id from the provider's website.")
    if facts.is_clone(found):
        raise VoiceNotAdded(
            "This voice is a clone of a person. A clone speaks only to the patient that it was made for. "
            "Make it under Voice clones."
        )
    if found.needs_verification:
        raise VoiceNotAdded("The speech provider must verify the owner of this voice before it can speak.")
    voice = facts.new_stock_voice(found)
    Voice.objects.bulk_create([voice], ignore_conflicts=True)
    if not Voice.objects.filter(pk=voice.pk).exists():
        _refuse_known(provider_id)  # another request or the worker has added it in the meantime
    return voice


def _refuse_known(provider_id: str) -> None:
    known = Voice.objects.filter(provider_id=provider_id).first()
    if known is None:
        return
    if known.source == Voice.Source.CLONED:
        raise VoiceNotAdded("This id belongs to the clone of a patient. It cannot be added as a stock voice.")
    raise VoiceNotAdded(f"This voice is in the list already. Its name is {known.name}.")
