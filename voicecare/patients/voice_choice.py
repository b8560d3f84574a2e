"""The choice of a voice in the admin, with a player."""

import uuid
from typing import Any

from django import forms
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from voicecare.core import languages
from voicecare.patients.models import Patient


def preview_query(patient: Patient) -> dict[str, str]:
    """The query for the preview of a voice as this patient hears it: the language and the speech rate."""
    language = {"language": patient.language} if languages.is_listed(patient.language) else {}
    return {"speech_rate": str(patient.speech_rate), **language}


class VoiceSelect(forms.Select):
    """A choice of a voice, so that it can be listened to before the page is saved.

    The script gives the player the address of the chosen voice, in the language that is chosen on the same page.
    Without the script, the player plays the voice that is saved. `preview` is the name of the route of previews.
    """

    def __init__(self, preview: str = "admin-voice-preview") -> None:
        super().__init__()
        self._preview = preview

    class Media:
        js = ("voicecare/voice_choice.js",)

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:  # noqa: ANN401 - Django's signature
        address = reverse(self._preview, args=[uuid.UUID(int=0)])
        player = format_html(
            '<audio class="voice-player" controls preload="none" data-voice="{}" data-address="{}"'
            ' aria-label="A preview of the chosen voice"{}></audio>',
            name,
            address,
            format_html(' src="{}"', address.replace(str(uuid.UUID(int=0)), str(value))) if value else " hidden",
        )
        return super().render(name, value, attrs, renderer) + player
