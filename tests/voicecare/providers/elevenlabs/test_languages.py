"""Which language code a request gets: by the model's list, and by the refusals that were met."""

import pytest

from voicecare.providers.elevenlabs.languages import ModelLanguages
from voicecare.providers.elevenlabs.responses import Model, models_from_json

FLASH = "eleven_flash_v2_5"


def model(*languages: str, model_id: str = FLASH) -> Model:
    listed = [{"language_id": code, "name": code} for code in languages]
    return models_from_json([{"model_id": model_id, "languages": listed}])[0]


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("en", "en"),
        ("en-GB", "en"),
        ("pt-BR", "pt"),
        ("zh-Hant", "zh"),
        ("nb", "no"),
        ("nn", "no"),
        ("no", "no"),
        ("tl", "fil"),
        ("in", "id"),
        ("he", None),
        ("iw", None),
        ("km", None),
        ("xx", None),
        ("German", None),
        ("", None),
        (None, None),
    ],
)
def test_flash_has_32_languages(language: str | None, code: str | None):
    assert ModelLanguages().code_for(FLASH, language) == code


def test_the_models_own_list_replaces_the_table():
    languages = ModelLanguages()
    languages.update([model("en", "he")])
    assert [languages.code_for(FLASH, language) for language in ("en", "iw", "de")] == ["en", "he", None]


@pytest.mark.parametrize("model_id", ["eleven_flash_v2", "eleven_multilingual_v2", "eleven_v3", "eleven_v9"])
def test_a_model_that_takes_no_code_gets_none_whatever_it_speaks(model_id: str):
    languages = ModelLanguages()
    assert languages.code_for(model_id, "es") is None
    languages.update([model("en", "es", model_id=model_id)])
    assert languages.code_for(model_id, "es") is None


@pytest.mark.parametrize("listed", ["nb", "no", "NO", "nor"])
def test_the_code_is_sent_in_the_spelling_of_the_list(listed: str):
    languages = ModelLanguages()
    languages.update([model("en", listed)])
    assert {languages.code_for(FLASH, language) for language in ("nb", "nn", "no")} == {listed}


def test_a_code_without_a_region_is_preferred():
    languages = ModelLanguages()
    languages.update([model("pt-br", "pt", "zh-cn")])
    assert [languages.code_for(FLASH, language) for language in ("pt-BR", "zh")] == ["pt", "zh-cn"]


@pytest.mark.parametrize(
    "reply", [{}, {"languages": None}, {"languages": []}, {"languages": [7, {}, {"language_id": 7}]}]
)
def test_a_list_without_languages_says_nothing(reply: dict):
    languages = ModelLanguages()
    languages.update(models_from_json([{"model_id": FLASH, **reply}]))
    assert languages.code_for(FLASH, "nb") == "no"


def test_a_refused_code_is_left_out_for_that_model_only():
    languages = ModelLanguages()
    languages.refuse(FLASH, "no")
    assert [languages.code_for(FLASH, language) for language in ("nb", "de")] == [None, "de"]
    assert languages.code_for("eleven_turbo_v2_5", "nb") == "no"


def test_a_refused_code_is_tried_again_when_the_models_have_been_read():
    languages = ModelLanguages()
    languages.refuse(FLASH, "no")
    languages.update([model("en", "no")])
    assert languages.code_for(FLASH, "nb") == "no"
