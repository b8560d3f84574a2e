"""Which voice is the default voice: the choices of administrators and of the server, and how the server chooses."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import structlog
from django.apps import apps
from django.conf import settings
from django.db import models, transaction
from django.db.models import Count, Q
from django.utils import timezone

from voicecare.core import languages
from voicecare.patients.models.voice import Voice

if TYPE_CHECKING:
    from voicecare.patients.models.patient import Patient

ENDS_SOON = timedelta(days=180)  # a voice that ends earlier is chosen only if there is no other
_BEST_CATEGORIES = ("", "premade", "generated", "high_quality", "professional", "famous")  # from fast to slow

log = structlog.get_logger(__name__)


class DefaultVoice(models.Model):
    """A default voice that an administrator has chosen, or the server itself. See `DefaultVoices` for their order.

    A choice stays when its voice becomes unusable, so that it holds again as soon as the voice can be used again.
    """

    class ChosenBy(models.TextChoices):
        SERVER = "server"
        ADMINISTRATOR = "administrator"

    id = models.BigAutoField(primary_key=True)
    language = models.CharField(
        max_length=languages.MAX_LENGTH, blank=True, default="", help_text="Empty: every language without a choice."
    )
    voice = models.ForeignKey(Voice, on_delete=models.PROTECT, related_name="default_for")
    chosen_by = models.CharField(max_length=13, choices=ChosenBy, default=ChosenBy.ADMINISTRATOR, editable=False)
    chosen_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("language", "chosen_by")
        constraints = [
            models.UniqueConstraint(fields=["language", "chosen_by"], name="default_voice_once"),
            models.CheckConstraint(
                condition=Q(chosen_by__in=["server", "administrator"]), name="default_voice_chosen_by"
            ),
            models.CheckConstraint(
                condition=Q(chosen_by="administrator") | Q(language=""), name="default_voice_server_has_one"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.voice} ({self.language_name})"

    @property
    def language_name(self) -> str:
        return languages.LANGUAGES.get(self.language, self.language) or "every language"

    @classmethod
    def in_use(cls, language: str) -> Voice | None:
        """The default voice for this language, see `Voice.objects.default`."""
        return DefaultVoices().for_language(language)


class DefaultVoices:
    """The default voices of all languages, read with two queries, and the voices of patients.

    The default voice is the first of these voices that is dependable, or whose successor is:

    1. the voice of DEFAULT_VOICE_ID
    2. the administrator's choice for the language
    3. the administrator's choice for every language
    4. the server's choice

    If none is, the server chooses the best stock voice now. If none of those is dependable either, the first of the
    choices that is usable at all holds: the provider may accept it again.
    """

    def __init__(self) -> None:
        self._rows: Mapping[tuple[str, str], DefaultVoice] = {
            (row.chosen_by, row.language): row for row in DefaultVoice.objects.select_related("voice__successor")
        }

    def for_language(self, language: str) -> Voice | None:
        """The default voice for patients with this language. None if there is no usable voice."""
        choices = list(self._choices(languages.code_of(language)))
        dependable = (choice.or_successor() for choice in choices)
        found = next((voice for voice in dependable if voice is not None), None) or self._best
        if found is not None and found.is_dependable:
            return found
        return next((voice for voice in choices if voice.is_usable and voice.can_be_default), found)

    def reserve(self, language: str) -> Voice | None:
        """The voice to use if the default voice is refused, until another one has taken over. None if there is none.

        It is the voice that will take over, so that a conversation does not get a third voice.
        """
        default = self.for_language(language)
        if default is None:
            return None
        for choice in (*self._choices(languages.code_of(language)), default):
            for voice in (choice, choice.successor):
                if voice not in (None, default) and voice.is_dependable and voice.can_be_default:
                    return voice
        others = [voice for voice in self._candidates if voice != default and voice.is_dependable]
        return best_voice(others, language, like=default)

    def for_patient(self, patient: "Patient") -> Voice | None:
        """The voice of the patient's next conversation. None if there is none.

        A patient who hears only their own voice keeps it when it has ended or is gone. Then it may be unusable: no
        request is made for it, but its cached phrases may be played. Those of a withdrawn voice may not.
        """
        own = patient.voice
        if patient.hears_own_voice_only:
            return None if own is None or own.state == Voice.State.WITHDRAWN else own
        if own is None:
            return self.for_language(patient.language)
        if not own.is_usable:
            return self.backup_for(patient)
        if not own.has_ended:
            return own
        following = own.or_successor() or self.backup_for(patient)
        return following if following is not None and following.is_dependable else own

    def backup_for(self, patient: "Patient") -> Voice | None:
        """The patient's backup voice: the chosen one, its successor, or the default voice. None if there is none.

        A patient who hears only their own voice has no backup voice.
        """
        if patient.hears_own_voice_only:
            return None
        chosen = patient.backup_voice
        if chosen is None:
            return self.for_language(patient.language)
        if chosen.is_dependable:
            return chosen
        return chosen.or_successor() or self.for_language(patient.language)

    def reserve_for(self, patient: "Patient") -> Voice | None:
        """The voice to use if the backup voice is refused: the default voice, or `reserve` if that is the backup voice.

        None if there is none, and for a patient who hears only their own voice.
        """
        if patient.hears_own_voice_only:
            return None
        default = self.for_language(patient.language)
        return default if default != self.backup_for(patient) else self.reserve(patient.language)

    def all(self) -> set[Voice]:
        """The default voices of all languages."""
        return set(self.by_language().values())

    def by_language(self) -> dict[str, Voice]:
        """The default voice of each language with a choice of its own. The key "" has that of all other languages."""
        in_use = {language: self.for_language(language) for language in ("", *(language for _, language in self._rows))}
        return {language: voice for language, voice in in_use.items() if voice is not None}

    def _choices(self, language: str) -> Iterator[Voice]:
        if settings.DEFAULT_VOICE_ID:
            yield self._configured
        by = DefaultVoice.ChosenBy
        for key in dict.fromkeys([(by.ADMINISTRATOR, language), (by.ADMINISTRATOR, ""), (by.SERVER, "")]):
            if key in self._rows:
                yield self._rows[key].voice

    @cached_property
    def _configured(self) -> Voice:
        """The voice of DEFAULT_VOICE_ID. Creates its row if the provider's voices have not been read yet."""
        provider_id = settings.DEFAULT_VOICE_ID
        if found := next((voice for voice in self._candidates if voice.provider_id == provider_id), None):
            return found
        fields = {"name": "Default", "source": Voice.Source.STOCK}
        return Voice.objects.select_related("successor").get_or_create(provider_id=provider_id, defaults=fields)[0]

    @cached_property
    def _candidates(self) -> list[Voice]:
        return list(Voice.objects.default_candidates().select_related("successor"))

    @cached_property
    def _best(self) -> Voice | None:
        return choose_default(like=next(self._choices(""), None))


def choose_default(like: Voice | None = None) -> Voice | None:
    """Choose the best stock voice as the server's default voice, and write the choice down. None without any.

    Of equally good voices it takes the one that resembles `like`, the voice that it replaces. Processes that choose at
    the same time agree on one voice. A dependable earlier choice stays.
    """
    best = best_voice(Voice.objects.default_candidates(), like=like)
    if best is None:
        return None
    choice = DefaultVoice(voice=best, chosen_by=DefaultVoice.ChosenBy.SERVER)
    with transaction.atomic():
        DefaultVoice.objects.bulk_create([choice], ignore_conflicts=True)  # waits for the row of another process
        rows = DefaultVoice.objects.select_for_update(of=("self",)).select_related("voice")
        row = rows.get(language="", chosen_by=choice.chosen_by)
        is_better = best.is_dependable or not row.voice.is_usable
        if row.voice_id != best.pk and is_better and not row.voice.is_dependable:
            row.voice, row.chosen_at = best, choice.chosen_at
            row.save(update_fields=["voice", "chosen_at"])
    if row.chosen_at == choice.chosen_at:
        log.info("voices.default_chosen", voice=str(best.pk))
    return row.voice


def best_voice(candidates: Iterable[Voice], spoken: str = "", like: Voice | None = None) -> Voice | None:
    """The best of these voices for patients who speak the language `spoken`, by default that of most patients.

    Of equally good voices it is the one that resembles `like`.
    """
    code = languages.code_of(spoken or _language_of_most_patients())
    return min(candidates, key=lambda voice: _rank(voice, code, like), default=None)


def _rank(voice: Voice, language: str, like: Voice | None) -> tuple[object, ...]:
    """The sort key of a voice, the best first."""
    known = voice.languages.split()
    fits = 0 if language in known else 2 if known else 1
    category = _BEST_CATEGORIES.index(voice.category) if voice.category in _BEST_CATEGORIES else len(_BEST_CATEGORIES)
    ends_soon = voice.ends_at is not None and voice.ends_at < timezone.now() + ENDS_SOON
    is_costly = (voice.price_rate or 1.0) > 1.0
    differs = () if like is None else (voice.gender != like.gender, voice.accent != like.accent, voice.age != like.age)
    return (not voice.is_dependable, ends_soon, fits, *differs, is_costly, category, voice.name, str(voice.pk))


def _language_of_most_patients() -> str:
    patients = apps.get_model("patients", "Patient").objects.active()
    counted = patients.order_by().values_list("language").annotate(number=Count("pk")).order_by("-number", "language")
    first = counted.first()
    return str(first[0]) if first else languages.DEFAULT
