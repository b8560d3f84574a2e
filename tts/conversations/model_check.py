"""What patients lose with the model of ELEVENLABS_MODEL_ID, in words for administrators."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings

from tts.text.segmenter import MAX_LENGTH
from voicecare.core import languages
from voicecare.patients.models import Patient
from voicecare.providers.elevenlabs.models import ModelCatalogue


@dataclass(frozen=True, slots=True)
class ModelProblem:
    """One sentence about the model. With `is_fatal`, it cannot speak, and patients hear the offline voice."""

    text: str
    is_fatal: bool = False


def find_model_problems(catalogue: ModelCatalogue) -> list[ModelProblem]:
    """Compare the model with the languages and speech rates of all active patients. Reads the database once."""
    wanted = Patient.objects.active().order_by().values_list("language", "speech_rate").distinct()
    return list(_problems(catalogue, settings.ELEVENLABS_MODEL_ID, [(code, float(rate)) for code, rate in wanted]))


def _problems(catalogue: ModelCatalogue, model_id: str, wanted: list[tuple[str, float]]) -> Iterator[ModelProblem]:
    """Yield the problems with this model. `wanted` has the languages and speech rates of the patients."""
    model = catalogue.get(model_id)
    if not model.can_speak:
        yield ModelProblem(f"{model_id} cannot speak texts.", is_fatal=True)
    if model.is_listed is False:
        yield ModelProblem(f"The provider does not list {model_id}. It may have been removed or renamed.")
    if model.max_characters is not None and model.max_characters < MAX_LENGTH:
        yield ModelProblem(
            f"{model_id} takes {model.max_characters} characters in a request. Longer sentences fail: "
            f"{MAX_LENGTH} are needed.",
            is_fatal=True,
        )
    if any(rate != 1.0 for _, rate in wanted):
        if not model.reads_speed:
            yield ModelProblem(f"{model_id} has no speech rate. All patients hear its normal rate.")
        elif model.voice_settings is None:
            yield ModelProblem(f"It is not known whether {model_id} follows the speech rate of patients.")
    spoken = dict.fromkeys(languages.code_of(language) for language, _ in wanted if language)
    known = model.languages or {}
    silent = [code for code in spoken if known and code not in known]
    if silent:
        yield ModelProblem(f"{model_id} does not list these languages of patients: {_names(silent)}.")
    guessed = [code for code in spoken if code not in silent and catalogue.code_for(model_id, code) is None]
    if guessed and len(known) != 1:  # a model with one language does not have to be told
        yield ModelProblem(f"{model_id} is not told the language. It guesses it for: {_names(guessed)}.")


def _names(codes: list[str]) -> str:
    return ", ".join(sorted(languages.LANGUAGES.get(code, code) for code in codes))
