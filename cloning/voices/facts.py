"""Copies what the provider says of its voices into our rows: new stock voices, names, labels, prices and ends."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from cloning.models import PROVIDER_NAME_PREFIX
from voicecare.core import languages
from voicecare.patients.models import Voice
from voicecare.patients.models.voice import CLONED_CATEGORY
from voicecare.providers.elevenlabs import responses
from voicecare.providers.elevenlabs.voice_facts import PREMADE_VOICES_END

READ_INTERVAL = timedelta(days=1)  # a row without changes is written once in this time
BANNED = ("BAN", "ENTERPRISE_BAN")
PREMADE_CATEGORY = "premade"
_CODES = {name.casefold(): code for code, name in languages.LANGUAGES.items()}

Source, EndSource = Voice.Source, Voice.EndSource


def add_stock_voices(listed: Iterable[responses.Voice]) -> int:
    """Adds rows for new stock voices of the provider's list. Returns how many are new.

    A clone is the voice of one patient's relative, even if it was not created here. It is not offered to others.
    """
    stock = [voice for voice in listed if not is_clone(voice)]
    known = set(Voice.objects.values_list("provider_id", flat=True))
    added = [new_stock_voice(voice) for voice in stock if voice.voice_id not in known]
    Voice.objects.bulk_create(added, ignore_conflicts=True)
    return len(added)


def is_clone(voice: responses.Voice) -> bool:
    """Whether this is an instant clone of a person, from this server or from elsewhere."""
    return voice.category == CLONED_CATEGORY or voice.name.startswith(PROVIDER_NAME_PREFIX)


def new_stock_voice(provider_voice: responses.Voice) -> Voice:
    """Returns a row for a voice of the provider, which is not saved yet."""
    voice = Voice(provider_id=provider_voice.voice_id, source=Source.STOCK)
    for name, value in _columns(voice, provider_voice, timezone.now()).items():
        setattr(voice, name, value)
    return voice


def update_voices(found: Iterable[tuple[Voice, responses.Voice]]) -> int:
    """Updates the rows of voices that the provider has. Returns how many have changed."""
    changed, now = 0, timezone.now()
    for voice, provider_voice in found:
        columns = _columns(voice, provider_voice, now)
        differs = any(getattr(voice, name) != value for name, value in columns.items() if name != "read_at")
        if differs or voice.read_at is None or voice.read_at <= now - READ_INTERVAL:
            Voice.objects.filter(pk=voice.pk).update(**columns)
        changed += differs
    return changed


def _columns(known: Voice, voice: responses.Voice, now: datetime) -> dict[str, Any]:
    """The columns of a voice that the provider decides. The name of a clone was given here, so it is left out."""
    facts = voice.facts
    ends_at, end_source = end_of(voice, known, now)
    codes = (languages.code_of(_CODES.get(spoken.casefold(), spoken)) for spoken in facts.languages)
    columns = {
        "category": voice.category[:20],
        "languages": " ".join(dict.fromkeys(code for code in codes if code in languages.LANGUAGES))[:200],
        "gender": facts.gender[:20],
        "age": facts.age[:20],
        "accent": facts.accent[:50],
        "description": facts.description[:500],
        "preview_url": facts.preview_url if len(facts.preview_url) <= 500 else "",
        "price_rate": facts.price_rate,
        "notice_period_days": facts.notice_period_days,
        "ends_at": ends_at,
        "end_source": end_source,
        "read_at": now,
    }
    name = {"name": voice.name.strip()[:100] or known.name or voice.voice_id} if known.source == Source.STOCK else {}
    return {**name, **columns}


def end_of(voice: responses.Voice, known: Voice, now: datetime) -> tuple[datetime | None, str]:
    """When a voice ends that the provider still has, and how that is known. The earliest of several ends.

    The times of a ban and of a notice are not told, so they are counted from the day when they were first seen.
    The sandbox has premade voices without an end. So has an account that still has some after the announced day.
    """
    facts = voice.facts
    first_seen = {EndSource(known.end_source): known.ends_at} if known.end_source and known.ends_at else {}
    ends: list[tuple[datetime, str]] = []
    if facts.safety_control in BANNED:
        ends.append((first_seen.get(EndSource.SAFETY, now), EndSource.SAFETY))
    if facts.disable_at_unix is not None:
        ends.append((datetime.fromtimestamp(facts.disable_at_unix, UTC), EndSource.ANNOUNCED))
    elif facts.is_sharing_ended and facts.notice_period_days is not None:
        notice = now + timedelta(days=min(facts.notice_period_days, 3650))
        ends.append((first_seen.get(EndSource.NOTICE, notice), EndSource.NOTICE))
    if voice.category == PREMADE_CATEGORY and not settings.USE_SANDBOX and now < PREMADE_VOICES_END + READ_INTERVAL:
        ends.append((PREMADE_VOICES_END, EndSource.PREMADE))
    return min(ends, default=(None, ""))
