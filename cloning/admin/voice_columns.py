"""The columns of the list of voices, and how the state of a voice is said in words."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, cast

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.html import format_html, format_html_join

from cloning.gateway import previews
from usage.alerts.voices import ending
from voicecare.core import languages
from voicecare.patients.models import DefaultVoices, Voice

EMPTY = "-"
_AUDIO = '<audio class="voice-player" controls preload="none" src="{}" aria-label="A sample of {}"></audio>'

State = Voice.State


class VoiceChangeList(ChangeList):
    """Counts the patients of all voices of the page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        voices: list[Any] = list(self.result_list)
        counted = ending.count_patients(voices)
        for voice in voices:
            voice.patients_who_hear_it = counted[voice]
        self.result_list = cast(Any, voices)


class VoiceColumns:
    """The columns of one request. What they have in common is read once, when the first row is shown."""

    def all(self) -> list[Callable[[Voice], str]]:
        return [self.name, self.languages, self.speaker, self.source, self.patients, self.player]

    @admin.display(description="Name", ordering="name")
    def name(self, voice: Voice) -> str:
        return format_html("{} {}", voice.name, badges(voice, self._default_languages))

    @admin.display(description="Languages")
    def languages(self, voice: Voice) -> str:
        return voice.language_names or EMPTY

    @admin.display(description="Gender, age, accent", ordering="gender")
    def speaker(self, voice: Voice) -> str:
        return voice.speaker or EMPTY

    @admin.display(description="Source", ordering="source")
    def source(self, voice: Voice) -> str:
        return source(voice)

    @admin.display(description="Patients")
    def patients(self, voice: Voice) -> str:
        """The number of active patients whose next conversation is in this voice."""
        number: int = cast(Any, voice).patients_who_hear_it
        return str(formats.localize(number))

    @admin.display(description="Listen")
    def player(self, voice: Voice) -> str:
        return player(voice)

    @cached_property
    def _default_languages(self) -> Mapping[Voice, list[str]]:
        return default_languages()


def default_languages() -> Mapping[Voice, list[str]]:
    """The default voices, each with the languages that it is the default voice of. "" stands for all others."""
    found: dict[Voice, list[str]] = {}
    for language, voice in DefaultVoices().by_language().items():
        found.setdefault(voice, []).append(language)
    return found


def badges(voice: Voice, defaults: Mapping[Voice, list[str]]) -> str:
    """The badges of a voice: whether it is a default voice, when it ends, or why it cannot be used."""
    shown = []
    if voice in defaults:
        named = [languages.LANGUAGES.get(language, language) for language in defaults[voice]]
        shown.append(("good", "Default" if "" in defaults[voice] else f"Default for {', '.join(named)}"))
    if voice.state != State.USABLE:
        shown.append(("bad", voice.get_state_display()))
    elif voice.refusal:
        shown.append(("bad", "Refused" if voice.refusal == Voice.Refusal.REFUSED else "Missing"))
    if voice.state == State.USABLE and voice.ends_at is not None:
        verb = "Ends" if voice.ends_at > timezone.now() else "Ended"
        shown.append(("warning", f"{verb} on {formats.date_format(timezone.localtime(voice.ends_at))}"))
    return format_html_join(" ", '<span class="badge badge-{}">{}</span>', shown)


def source(voice: Voice) -> str:
    if voice.source == Voice.Source.STOCK:
        return "Stock voice"
    return f"Clone for {voice.patient}" if voice.patient else "Clone"


def player(voice: Voice) -> str:
    """A player of the provider's sample, which is free. Without one, this server speaks a sentence in the voice."""
    if not voice.is_usable:
        return EMPTY
    has_sample = previews.trusted_address(voice.preview_url, settings.ELEVENLABS_BASE_URL) is not None
    route = "admin:patients_voice_sample" if has_sample else "admin-voice-preview"
    return format_html(_AUDIO, reverse(route, args=[voice.pk]), voice.name)
