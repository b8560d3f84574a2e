"""What patients would lose with another model than the current one, in words and numbers, for administrators."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from django.db.models import Count

from tts.text.segmenter import MAX_LENGTH
from voicecare.core import languages
from voicecare.patients.models import Patient
from voicecare.providers.elevenlabs.models import Capabilities, ModelCatalogue, is_for_speech

MAX_CANDIDATES = 50  # the provider has a few dozen models; of a longer list only these are shown
_STORABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # the column of the ledger has 64 characters


class Group(NamedTuple):
    """The number of patients who have this language, such as `nb` or "", and this speech rate."""

    language: str
    speech_rate: float
    patients: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model of the account beside the current one.

    `price_ratio` is its price divided by that of the current model. It is None if one of them is unknown or zero.
    `losses` are sentences about what patients would lose. `obstacle` says why the model cannot be chosen, or is empty.
    """

    model_id: str
    facts: Capabilities
    price_ratio: float | None
    losses: Sequence[str]
    obstacle: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The candidates, sorted by their ids. `hidden` is the number of models that are not shown.

    These are models behind MAX_CANDIDATES, and models with an id that is too long or has other characters than ids
    have.
    """

    candidates: Sequence[Candidate]
    hidden: int


def compare_models(catalogue: ModelCatalogue, current_id: str) -> Comparison:
    """Compare the models of the account for speech with the current one. Reads the database once."""
    others = [model_id for model_id in catalogue.listed_ids if model_id != current_id and is_for_speech(model_id)]
    shown = [model_id for model_id in others if _STORABLE_ID.fullmatch(model_id)][:MAX_CANDIDATES]
    groups = _load_groups()
    candidates = [
        Candidate(
            model_id,
            facts := catalogue.get(model_id),
            _price_ratio(facts, catalogue.get(current_id)),
            list(_losses(catalogue, current_id, model_id, groups)),
            _obstacle(facts),
        )
        for model_id in shown
    ]
    return Comparison(candidates, hidden=len(others) - len(shown))


def _load_groups() -> list[Group]:
    """Returns all active patients, grouped by what a model may lack."""
    rows = Patient.objects.active().order_by().values_list("language", "speech_rate").annotate(Count("pk"))
    return [Group(language, float(rate), patients) for language, rate, patients in rows]


def _price_ratio(model: Capabilities, current: Capabilities) -> float | None:
    if model.credits_per_character is None or not current.credits_per_character:
        return None
    return model.credits_per_character / current.credits_per_character


def _obstacle(model: Capabilities) -> str:
    if not model.can_speak:
        return "It does not speak texts."
    if model.max_characters is not None and model.max_characters < MAX_LENGTH:
        return f"It takes {model.max_characters} characters in a request. {MAX_LENGTH} are needed."
    return ""


def _losses(catalogue: ModelCatalogue, current_id: str, model_id: str, groups: Sequence[Group]) -> Iterator[str]:
    """Yield what the current model has and this one lacks, as far as there are patients who would notice it."""
    current, model = catalogue.get(current_id), catalogue.get(model_id)
    everybody = sum(group.patients for group in groups)
    if not everybody:
        return
    own_rate = sum(group.patients for group in groups if group.speech_rate != 1.0)
    if own_rate and current.reads_speed and not model.reads_speed:
        yield f"The speech rate of {_patients(own_rate)} is ignored."
    elif own_rate and current.voice_settings is not None and current.reads_speed and model.voice_settings is None:
        yield f"It is not known whether it follows the speech rate of {_patients(own_rate)}."
    yield from _language_losses(catalogue, current_id, model_id, groups)
    if current.performs_tags and not model.performs_tags:
        yield f"Audio tags such as [laughs] are left out, for {_patients(everybody)}."
    if current.takes_context and not model.takes_context:
        yield f"Sentences are spoken without regard to those before and after, for {_patients(everybody)}."
    if current.normalizes and not model.normalizes:
        yield f"It is not known how it reads numbers and abbreviations, for {_patients(everybody)}."
    if current.concurrency_group == "turbo" and model.concurrency_group == "standard":
        yield "The plan allows fewer requests at the same time, so patients wait sooner when many are spoken to."


def _language_losses(
    catalogue: ModelCatalogue, current_id: str, model_id: str, groups: Sequence[Group]
) -> Iterator[str]:
    spoken: Counter[str] = Counter()
    for group in groups:
        if group.language:
            spoken[languages.code_of(group.language)] += group.patients
    known, known_now = catalogue.get(model_id).languages or {}, catalogue.get(current_id).languages or {}
    unlisted = {code: spoken[code] for code in spoken if known and code not in known}
    lost = {code: patients for code, patients in unlisted.items() if not known_now or code in known_now}
    if lost:
        yield f"It does not list the language of {_patients(sum(lost.values()))}: {_names(lost)}."
    guessed = {
        code: spoken[code]
        for code in spoken.keys() - unlisted.keys()
        if catalogue.code_for(model_id, code) is None and catalogue.code_for(current_id, code) is not None
    }
    if guessed and len(known) != 1:  # a model with one language does not have to be told
        yield f"It is not told the language of {_patients(sum(guessed.values()))}, and guesses it: {_names(guessed)}."


def _patients(number: int) -> str:
    return "1 patient" if number == 1 else f"{number:,} patients"


def _names(patients_by_code: dict[str, int]) -> str:
    named = ((languages.LANGUAGES.get(code, code), patients) for code, patients in patients_by_code.items())
    return ", ".join(f"{name} ({patients:,})" for name, patients in sorted(named))
