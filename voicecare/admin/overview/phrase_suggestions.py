"""Suggestions: texts that were paid for again and again in the last month and that the phrase cache would make cheaper.

The ledger has digests of texts only. A text can be shown while a message that contains it is kept.
"""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet

from tts.cache.planning import REFRESH_BEFORE_EXPIRY, active_patients, load_audiences, required_clips
from tts.models import Phrase, Utterance
from tts.text.digest import text_digest
from tts.text.segmenter import normalise, split
from usage.ledger import text_digests
from usage.models import UsageEvent
from usage.reports import repeated_texts
from usage.reports.repeated_texts import RepeatedText
from voicecare.core import languages
from voicecare.patients import care_teams
from voicecare.patients.models import Patient

SHOWN = 100  # suggestions on the page
SEARCHED_MESSAGES = 50  # the latest ones in which a text is looked for
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A repeated text, its language without a region, and the characters that its clips would cost in a month."""

    text: RepeatedText
    language: str
    clip_characters: int

    @property
    def saved_characters(self) -> int:
        """The characters that caching would have saved in the last month. Negative if it would have cost more."""
        return self.text.characters - self.clip_characters

    @property
    def saved_cost(self) -> Decimal | None:
        """What these characters cost, in PRICE_CURRENCY. None without a price."""
        amount = self.text.cost.amount
        return None if amount is None else amount * self.saved_characters / self.text.characters


@dataclass(frozen=True, slots=True)
class FoundText:
    """The text of a suggestion, in one line, and the message in which it was found."""

    text: str
    message: Utterance

    def names(self) -> list[str]:
        """Return the words of the text that are part of the name of any patient, in their order."""
        names = Patient.objects.order_by().values_list("name", "preferred_name")
        parts = {word.casefold() for both in names for name in both for word in _WORD.findall(name)}
        return [word for word in dict.fromkeys(_WORD.findall(self.text)) if word.casefold() in parts]


def visible_events(user: AbstractBaseUser | AnonymousUser) -> QuerySet[UsageEvent]:
    """Return the events of the last month with a digest, of the patients whom the user may see."""
    return care_teams.limit_records(text_digests.recent_events(), user, "patient")


def load_suggestions(user: AbstractBaseUser | AnonymousUser) -> list[Suggestion]:
    """Return the texts that caching would make cheaper, those that save most first. At most eleven queries."""
    known = [digest_of(phrase) for phrase in Phrase.objects.exclude(kind=Phrase.Kind.GREETING)]
    found = _with_clips(repeated_texts.most_paid(visible_events(user), known))
    saving = [one for one in found if one.saved_characters > 0]
    return sorted(saving, key=lambda one: -one.saved_characters)[:SHOWN]


def load_suggestion(event: UsageEvent, user: AbstractBaseUser | AnonymousUser) -> Suggestion | None:
    """Return the suggestion of the text that this event has paid for. None if it is not repeated any more."""
    text = repeated_texts.repetitions_of(visible_events(user), event.text_digest)
    return None if text is None else next(iter(_with_clips([text])), None)


def find_text(suggestion: Suggestion, user: AbstractBaseUser | AnonymousUser) -> FoundText | None:
    """Look for the text in the latest messages that the user may see. None if none of them is kept."""
    language, digest = suggestion.language, suggestion.text.digest
    events = visible_events(user).filter(text_digest=digest).order_by("-started_at")
    sources = list(events.values_list("source", flat=True)[:SEARCHED_MESSAGES])
    kept = Utterance.objects.filter(pk__in=sources).exclude(text="")
    common = Phrase.objects.for_language(language).exclude(kind=Phrase.Kind.GREETING)
    phrases = frozenset(normalise(text) for text in common.values_list("text", flat=True))
    for message in care_teams.limit(kept, user):
        for segment in split(message.text, language, phrases):
            if text_digest(segment, language, settings.PHRASE_SECRET) == digest:
                return FoundText(" ".join(segment.split()), message)
    return None


def clips_of(suggestion: Suggestion, text: str) -> int:
    """Return how many clips the text would have as a phrase: one for each voice, speech rate, format and way to say it.

    All patients count, not only those whom a user may see.
    """
    phrase = Phrase(kind=Phrase.Kind.COMMON, language=suggestion.language, text=text)
    return len(required_clips(load_audiences(active_patients()), [phrase], settings.ELEVENLABS_MODEL_ID))


def digest_of(phrase: Phrase) -> str:
    """Return the digest that events of this phrase have."""
    return text_digest(phrase.text, languages.code_of(phrase.language), settings.PHRASE_SECRET)


def clip_characters(length: int, clips: int) -> int:
    """Return the characters that so many clips of a text of this length cost in a month.

    A clip is generated again a day before it expires, so several times in a month.
    """
    lifetime = timedelta(seconds=settings.PHRASE_TTL_S) - REFRESH_BEFORE_EXPIRY
    return round(length * clips * max(timedelta(days=text_digests.DIGEST_DAYS) / lifetime, 1.0))


def _with_clips(texts: list[RepeatedText]) -> list[Suggestion]:
    """Add the characters that the clips would cost in a month."""
    patients = Patient.objects.filter(pk__in={text.patient_id for text in texts}).order_by()
    spoken = {pk: languages.code_of(tag) for pk, tag in patients.values_list("pk", "language")}
    clips: Counter[str] = Counter()
    if texts:
        sounds = {
            (one.language, one.voice.pk, one.speech_rate, one.format) for one in load_audiences(active_patients())
        }
        clips.update(language for language, *_ in sounds)
    return [
        Suggestion(text, spoken[text.patient_id], clip_characters(text.length, clips[spoken[text.patient_id]]))
        for text in texts
        if text.patient_id in spoken
    ]
