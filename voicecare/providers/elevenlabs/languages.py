"""The language codes that each model of the provider accepts, as far as this process knows them. Pure.

Speech must not wait for a request for these codes. So they come from a table. `update` replaces its entries with the
account's list of models, and `refuse` removes codes that the provider has rejected.

Only the models of the table accept a code. The account's list does not say which models do: it has the languages that a
model speaks, also for models that may reject every code.
"""

from collections.abc import Iterable, Mapping

from voicecare.core.languages import code_of
from voicecare.providers.elevenlabs.responses import Model

_V2_5 = "ar bg cs da de el en es fi fil fr hi hr hu id it ja ko ms nl no pl pt ro ru sk sv ta tr uk vi zh"
_LANGUAGES: Mapping[str, str] = {"eleven_flash_v2_5": _V2_5, "eleven_turbo_v2_5": _V2_5}


class ModelLanguages:
    """The language codes of each model. One object serves a whole process."""

    def __init__(self) -> None:
        self._codes = {model_id: _by_code(languages.split()) for model_id, languages in _LANGUAGES.items()}
        self._refused: set[tuple[str, str]] = set()

    def update(self, models: Iterable[Model]) -> None:
        """Uses the languages in the provider's list of models, and forgets the rejected codes.

        A model that is listed without languages keeps its known ones.
        """
        self._codes |= {
            model.model_id: _by_code(model.languages)
            for model in models
            if model.languages and model.model_id in _LANGUAGES
        }
        self._refused.clear()

    def refuse(self, model_id: str, language_code: str) -> None:
        """Records that the provider has rejected this code for this model.

        Until the next `update`, `code_for` does not return it.
        """
        self._refused.add((model_id, language_code))

    def code_for(self, model_id: str, language: str | None) -> str | None:
        """Returns the language code to send for a language, in the spelling of the model, or None to send no code.

        `language` is a tag such as `nb` or `pt-BR`.
        """
        if not language or model_id not in self._codes:
            return None
        listed = self._codes[model_id].get(code_of(language))
        return None if listed is None or (model_id, listed) in self._refused else listed


def _by_code(languages: Iterable[str]) -> dict[str, str]:
    """Returns a mapping from our language codes to those of the model.

    If the model has both `pt` and `pt-br`, `pt` is used.
    """
    return {code_of(language): language for language in sorted(languages, key=len, reverse=True)}
