"""What each model of the provider can do, as far as this process knows it. Pure.

The facts of a model come from three sources. The table below has the facts that the provider's documentation states and
its list of models does not report. `update` adds what the list reports: languages, longest text, price and concurrency
group. `learn` adds what the provider has refused. Speech must not wait for the list, so requests are possible without
it.

A model that is not in the table has the facts of its family, such as `eleven_v3_conversational` those of `eleven_v3`. A
model of no known family is requested in the plainest way: without a language code and without neighbour text.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from voicecare.core.languages import code_of
from voicecare.providers.elevenlabs.requests import Endpoint, SpeechRequest
from voicecare.providers.elevenlabs.responses import Model
from voicecare.providers.errors import Cause, ProviderError

Group = Literal["standard", "turbo"]
_GROUPS: Mapping[str, Group] = {"standard": "standard", "turbo": "turbo"}

MAX_MODELS = 1000
"""Of a longer list, only these are read. The provider has a few dozen models."""

_V2 = "ar bg cs da de el en es fi fil fr hi hr id it ja ko ms nl pl pt ro ru sk sv ta tr uk zh"
_V2_5 = f"{_V2} hu no vi"
_V3 = (
    f"{_V2_5} af as az be bn bs ca ceb cy et fa ga gl gu ha he hy is jv ka kk kn ky lb ln lt lv mk ml mr ne ny pa ps "
    "sd sl so sr sw te th ur"
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do and costs.

    `languages` maps our codes of languages to the codes of the model. It is empty if they are unknown. With
    `takes_language_code`, a request may name the language. `voice_settings` are the names of the settings that the
    model reads, or None if they are unknown. With `takes_context`, it accepts the text before and after. With
    `normalizes`, it accepts `apply_text_normalization`. With `performs_tags`, it performs audio tags such as
    `[laughs]`, which other models read aloud. `credits_per_character` is None if the price is unknown. `endpoint` is
    the one to try first. `is_listed` is None before the list of models was read.
    """

    max_characters: int | None = None
    languages: Mapping[str, str] | None = None
    takes_language_code: bool = False
    voice_settings: frozenset[str] | None = None
    takes_context: bool = False
    normalizes: bool = False
    performs_tags: bool = False
    credits_per_character: float | None = None
    concurrency_group: Group = "standard"  # the smaller limit
    endpoint: Endpoint = Endpoint.TEXT_TO_SPEECH
    can_speak: bool = True
    is_listed: bool | None = None

    @property
    def reads_speed(self) -> bool:
        """Whether the model reads the speech rate, or may read it."""
        return self.voice_settings is None or "speed" in self.voice_settings

    def credits_for(self, characters: int) -> int | None:
        """Returns the price of a request without the factor of its voice. None if the price is unknown."""
        factor = self.credits_per_character
        return None if factor is None else math.ceil(characters * factor)


def _by_code(languages: Iterable[str]) -> dict[str, str]:
    """Returns a mapping from our language codes to those of the model.

    If the model has both `pt` and `pt-br`, `pt` is used.
    """
    return {code_of(language): language for language in sorted(languages, key=len, reverse=True)}


_ALL_SETTINGS = frozenset({"stability", "similarity_boost", "style", "use_speaker_boost", "speed"})
_FLASH = Capabilities(
    max_characters=40_000,
    languages=_by_code(_V2_5.split()),
    takes_language_code=True,
    voice_settings=frozenset({"stability", "similarity_boost", "speed"}),
    takes_context=True,
    normalizes=True,
    credits_per_character=0.5,
    concurrency_group="turbo",
)
_ENGLISH_FLASH = replace(_FLASH, max_characters=30_000, languages=_by_code(["en"]), takes_language_code=False)
_MULTILINGUAL = Capabilities(
    max_characters=10_000,
    languages=_by_code(_V2.split()),
    voice_settings=_ALL_SETTINGS,
    takes_context=True,
    normalizes=True,
    credits_per_character=1.0,
)
_EXPRESSIVE = Capabilities(
    max_characters=5_000,
    languages=_by_code(_V3.split()),
    takes_language_code=True,
    voice_settings=frozenset({"stability"}),
    normalizes=True,
    performs_tags=True,
    credits_per_character=1.0,
)
# The provider's documentation gives no price of v3 Conversational and v4. Sources disagree about the endpoint of the
# last three: `ModelCatalogue.learn` finds out which one the provider accepts.
_DIALOGUE = replace(_EXPRESSIVE, credits_per_character=None, endpoint=Endpoint.TEXT_TO_DIALOGUE)
_TABLE: Mapping[str, Capabilities] = {
    "eleven_flash_v2_5": _FLASH,
    "eleven_turbo_v2_5": _FLASH,
    "eleven_flash_v2": _ENGLISH_FLASH,
    "eleven_turbo_v2": _ENGLISH_FLASH,
    "eleven_multilingual_v2": _MULTILINGUAL,
    "eleven_multilingual_v1": replace(_MULTILINGUAL, languages=None),
    "eleven_monolingual_v1": replace(_MULTILINGUAL, languages=_by_code(["en"])),
    "eleven_v3": _EXPRESSIVE,
    "eleven_v3_conversational": _DIALOGUE,
    "eleven_v4": replace(_DIALOGUE, max_characters=10_000),
    "eleven_v4_turbo": replace(  # over text to speech, it takes neighbour text
        _EXPRESSIVE, max_characters=10_000, takes_context=True, credits_per_character=0.5, concurrency_group="turbo"
    ),
}
_OTHER_WORK = ("scribe", "_sts_", "_ttv_", "sound", "music")
"""Parts of the ids of models that transcribe, convert voices, design voices or make sounds, and cannot speak a text."""


def is_for_speech(model_id: str) -> bool:
    """Whether the id can be that of a model for speech, as far as the id says."""
    return model_id in _TABLE or not any(part in model_id for part in _OTHER_WORK)


def _family(model_id: str) -> Capabilities:
    """Returns the facts of this model in the table, or those of the longest id that this id begins with."""
    known = [name for name in _TABLE if model_id == name or model_id.startswith(f"{name}_")]
    return _TABLE[max(known, key=len)] if known else Capabilities()


class ModelCatalogue:
    """The models of the account. One object serves a whole process."""

    def __init__(self) -> None:
        self._models: dict[str, Capabilities] = {}
        self._refused_languages: set[tuple[str, str]] = set()
        self._refused_endpoints: dict[str, set[Endpoint]] = {}
        self._refused_contexts: set[str] = set()
        self._listed: Mapping[str, Model] = {}

    @property
    def listed_ids(self) -> list[str]:
        """The ids of all models of the account, sorted, as the provider's list names them. Empty without a list."""
        return sorted(self._listed)

    def get(self, model_id: str) -> Capabilities:
        """Returns what this model can do."""
        found = self._models.get(model_id)
        if found is None:
            found = self._models[model_id] = self._load(model_id)
        return found

    def update(self, models: Iterable[Model]) -> None:
        """Uses the provider's list of models, and forgets the refused languages.

        An empty list says nothing, so everything stays as it was. The accepted endpoints stay: they are part of no
        list. If both endpoints have refused a model, they are tried again.
        """
        listed = {model.model_id: model for _, model in zip(range(MAX_MODELS), models, strict=False)}
        if not listed:
            return
        self._listed = listed
        self._models.clear()
        self._refused_languages.clear()
        self._refused_endpoints = {
            model_id: refused for model_id, refused in self._refused_endpoints.items() if len(refused) < len(Endpoint)
        }

    def _load(self, model_id: str) -> Capabilities:
        known, listed = _family(model_id), self._listed.get(model_id)
        if listed is None:
            return replace(known, is_listed=False) if self._listed else known
        return replace(
            known,
            max_characters=listed.max_characters or known.max_characters,
            languages=_by_code(listed.languages) if listed.languages else known.languages,
            credits_per_character=known.credits_per_character if listed.price is None else listed.price,
            concurrency_group=_GROUPS.get(listed.concurrency_group, known.concurrency_group),
            can_speak=listed.can_speak,
            is_listed=True,
        )

    def code_for(self, model_id: str, language: str | None) -> str | None:
        """Returns the language code to send for a language, in the spelling of the model, or None to send no code.

        `language` is a tag such as `nb` or `pt-BR`.
        """
        model = self.get(model_id)
        if not language or not model.takes_language_code:
            return None
        listed = (model.languages or {}).get(code_of(language))
        return None if listed is None or (model_id, listed) in self._refused_languages else listed

    def endpoint_for(self, model_id: str) -> Endpoint:
        """Returns the endpoint that accepts this model, as far as is known."""
        first = self.get(model_id).endpoint
        refused = self._refused_endpoints.get(model_id, ())
        return next((endpoint for endpoint in (first, *Endpoint) if endpoint not in refused), first)

    def fit(self, request: SpeechRequest) -> SpeechRequest:
        """Returns the request as its model accepts it: endpoint, language code, speech rate and neighbour text."""
        model_id = request.model_id
        model, endpoint = self.get(model_id), self.endpoint_for(model_id)
        has_context = (
            model.takes_context and endpoint is Endpoint.TEXT_TO_SPEECH and model_id not in self._refused_contexts
        )
        return replace(
            request,
            endpoint=endpoint,
            language_code=self.code_for(model_id, request.language_code),
            speed=request.speed if model.reads_speed and endpoint is Endpoint.TEXT_TO_SPEECH else None,
            previous_text=request.previous_text if has_context else None,
            next_text=request.next_text if has_context else None,
        )

    def learn(self, request: SpeechRequest, error: ProviderError) -> bool:
        """Records what the provider has refused in this request, which `fit` has returned.

        Returns True if the next `fit` gives another request, which may be accepted. What was refused is left out until
        the list of models is read again. Neighbour text and the accepted endpoint are remembered as long as the process
        runs.
        """
        model_id = request.model_id
        match error.cause:
            case Cause.LANGUAGE if request.language_code is not None:
                self._refused_languages.add((model_id, request.language_code))
                return True
            case Cause.CONTEXT if request.previous_text or request.next_text:
                self._refused_contexts.add(model_id)
                return True
            case Cause.MODEL:
                refused = self._refused_endpoints.setdefault(model_id, set())
                known_before = len(refused)
                refused.add(request.endpoint)
                return known_before < len(refused) < len(Endpoint)
        return False


CATALOGUE = ModelCatalogue()
"""The catalogue of this process, so that a refusal is met once for live speech, cache warming and probes together."""
