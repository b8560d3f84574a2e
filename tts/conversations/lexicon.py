"""Loads the lexicon: the entries of everybody, of a clinic and of a patient.

A conversation loads its lexicon when it is started or resumed. So a changed entry is heard in the next conversation,
and no query delays speech. The entries of everybody can be thousands. A process keeps them, and reads them again when
their number or the time of the last change differs.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache

from django.db.models import Count, Max, Q

from tts.models import LexiconEntry
from tts.text.lexicon import Lexicon, LexiconLayer, Replacement
from tts.text.spoken_form import Pronunciation
from voicecare.patients.models import Patient

_EVERYBODY = Q(clinic=None, patient=None)
_MAX_LANGUAGES = 32  # of which a process keeps the entries of everybody


def load_lexicon(language: str, patient: Patient | None = None) -> Lexicon:
    """Return the lexicon for texts in this language to this patient. Makes two queries, or one without a patient.

    `language` is a code without a region. One query more if the entries of everybody have changed.
    """
    entries = LexiconEntry.objects.for_language(language)
    stamp = LexiconEntry.objects.filter(_EVERYBODY).aggregate(number=Count("pk"), changed_at=Max("changed_at"))
    everybody = _entries_of_everybody(language, stamp["number"], stamp["changed_at"])
    if patient is None:
        return _lexicon(everybody)
    own = list(entries.filter(Q(patient=patient) | Q(clinic__isnull=False, clinic=patient.clinic_id)))
    personal, clinic = (
        [entry for entry in own if (entry.patient_id is not None) == is_own] for is_own in (True, False)
    )
    return _lexicon(_layer(personal), _layer(clinic), everybody)


def _lexicon(*layers: LexiconLayer) -> Lexicon:
    return Lexicon(tuple(layer for layer in layers if layer))


@lru_cache(maxsize=_MAX_LANGUAGES)
def _entries_of_everybody(language: str, number: int, changed_at: datetime | None) -> LexiconLayer:
    return _layer(LexiconEntry.objects.for_language(language).filter(_EVERYBODY))


def _layer(entries: Iterable[LexiconEntry]) -> LexiconLayer:
    return LexiconLayer(Replacement(entry.written, entry.spoken, entry.match_case) for entry in entries)


class LexiconBook:
    """All entries, read with one query, for what concerns many patients."""

    def __init__(self) -> None:
        self._entries: defaultdict[object, list[LexiconEntry]] = defaultdict(list)
        self._clinic_of: dict[uuid.UUID, uuid.UUID | None] = {}
        self._layers: dict[tuple[object, str], LexiconLayer] = {}
        for entry in LexiconEntry.objects.in_order().select_related("patient"):
            self._entries[entry.patient_id or entry.clinic_id].append(entry)
            if entry.patient is not None:
                self._clinic_of[entry.patient.pk] = entry.patient.clinic_id

    def lexicon(self, language: str, patient: Patient) -> Lexicon:
        """Return the lexicon for texts in this language to this patient, as `load_lexicon` does."""
        return self.lexicon_of(language, self.owners(patient.pk, patient.clinic_id))

    def owners(self, *ids: uuid.UUID | None) -> tuple[uuid.UUID, ...]:
        """Return those of these patients and clinics that have entries."""
        return tuple(owner for owner in ids if owner is not None and owner in self._entries)

    def lexicon_of(self, language: str, owners: Iterable[uuid.UUID]) -> Lexicon:
        """Return the entries of these owners, the most important first, and those of everybody."""
        return _lexicon(*(self._layer(owner, language) for owner in (*owners, None)))

    def spoken_forms(self, text: str, language: str) -> set[str]:
        """Return everything that this text may be said as, depending on the patient and their clinic."""
        clinics = {owner for owner in self._entries if owner is not None and owner not in self._clinic_of}
        owners = [(clinic,) for clinic in (None, *clinics)] + list(self._clinic_of.items())
        lexicons = [self.lexicon_of(language, self.owners(*some)) for some in owners]
        return {Pronunciation(language, lexicon).plain(text) for lexicon in lexicons}

    def _layer(self, owner: object, language: str) -> LexiconLayer:
        if (owner, language) not in self._layers:
            entries = [entry for entry in self._entries.get(owner, ()) if entry.language in ("", language)]
            self._layers[owner, language] = _layer(entries)
        return self._layers[owner, language]
