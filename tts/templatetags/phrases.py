"""Template tags about phrases, for pages of other apps."""

from django import template

from tts.cache.coverage import LanguageGap, languages_without_greeting
from tts.cache.planning import active_patients
from voicecare.patients.models import Patient

register = template.Library()


@register.simple_tag
def language_without_greeting(patient: Patient) -> LanguageGap | None:
    """Return the language of this patient if it has no greeting, otherwise None.

    Also None for an archived or erased patient, who has no conversations.
    """
    return next(iter(languages_without_greeting(active_patients().filter(pk=patient.pk))), None)
