"""What a request for each model contains: by the table, by the provider's list, and by the refusals that were met."""

from dataclasses import replace

import pytest

from voicecare.providers.elevenlabs.models import MAX_MODELS, ModelCatalogue, is_for_speech
from voicecare.providers.elevenlabs.requests import Endpoint, SpeechRequest
from voicecare.providers.elevenlabs.responses import Model, models_from_json
from voicecare.providers.elevenlabs.sandbox.account.models import MODELS as SANDBOX_MODELS
from voicecare.providers.errors import BadRequest, Cause, ProviderError, ServerError

FLASH = "eleven_flash_v2_5"
REQUEST = SpeechRequest(
    "v", "Hello.", FLASH, "mp3_44100_128", language_code="de", speed=0.8, previous_text="Before.", next_text="After."
)


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
    assert ModelCatalogue().code_for(FLASH, language) == code


def test_the_models_own_list_replaces_the_table():
    languages = ModelCatalogue()
    languages.update([model("en", "he")])
    assert [languages.code_for(FLASH, language) for language in ("en", "iw", "de")] == ["en", "he", None]


@pytest.mark.parametrize("model_id", ["eleven_flash_v2", "eleven_multilingual_v2", "eleven_v9"])
def test_a_model_that_takes_no_code_gets_none_whatever_it_speaks(model_id: str):
    languages = ModelCatalogue()
    assert languages.code_for(model_id, "es") is None
    languages.update([model("en", "es", model_id=model_id)])
    assert languages.code_for(model_id, "es") is None


@pytest.mark.parametrize("listed", ["nb", "no", "NO", "nor"])
def test_the_code_is_sent_in_the_spelling_of_the_list(listed: str):
    languages = ModelCatalogue()
    languages.update([model("en", listed)])
    assert {languages.code_for(FLASH, language) for language in ("nb", "nn", "no")} == {listed}


def test_a_code_without_a_region_is_preferred():
    languages = ModelCatalogue()
    languages.update([model("pt-br", "pt", "zh-cn")])
    assert [languages.code_for(FLASH, language) for language in ("pt-BR", "zh")] == ["pt", "zh-cn"]


@pytest.mark.parametrize(
    "reply", [{}, {"languages": None}, {"languages": []}, {"languages": [7, {}, {"language_id": 7}]}]
)
def test_a_list_without_languages_says_nothing(reply: dict):
    languages = ModelCatalogue()
    languages.update(models_from_json([{"model_id": FLASH, **reply}]))
    assert languages.code_for(FLASH, "nb") == "no"


def test_a_refused_code_is_left_out_for_that_model_only():
    languages = ModelCatalogue()
    languages.learn(replace(REQUEST, language_code="no"), BadRequest(cause=Cause.LANGUAGE))
    assert [languages.code_for(FLASH, language) for language in ("nb", "de")] == [None, "de"]
    assert languages.code_for("eleven_turbo_v2_5", "nb") == "no"


def test_a_refused_code_is_tried_again_when_the_models_have_been_read():
    languages = ModelCatalogue()
    languages.learn(replace(REQUEST, language_code="no"), BadRequest(cause=Cause.LANGUAGE))
    languages.update([model("en", "no")])
    assert languages.code_for(FLASH, "nb") == "no"


# The table


@pytest.mark.parametrize(
    ("model_id", "kept"),
    [
        (FLASH, {"language_code": "de", "speed": 0.8, "previous_text": "Before.", "next_text": "After."}),
        ("eleven_flash_v2", {"speed": 0.8, "previous_text": "Before.", "next_text": "After."}),
        ("eleven_multilingual_v2", {"speed": 0.8, "previous_text": "Before.", "next_text": "After."}),
        ("eleven_v3", {"language_code": "de"}),
        ("eleven_v3_preview_2026", {"language_code": "de"}),
        ("eleven_v3_conversational", {"language_code": "de"}),
        ("eleven_v4", {"language_code": "de"}),
        ("eleven_v4_turbo", {"language_code": "de", "previous_text": "Before.", "next_text": "After."}),
        ("eleven_v9", {"speed": 0.8}),
    ],
)
def test_a_request_has_only_what_its_model_accepts(model_id: str, kept: dict):
    parts = ("language_code", "speed", "previous_text", "next_text")
    fitting = ModelCatalogue().fit(replace(REQUEST, model_id=model_id))
    assert {name: value for name in parts if (value := getattr(fitting, name)) is not None} == kept
    assert fitting.text == REQUEST.text


@pytest.mark.parametrize("listed", SANDBOX_MODELS.values(), ids=lambda listed: listed.model_id)
def test_the_table_and_the_list_of_the_provider_agree(listed: object):
    shown = listed.to_json()
    table, read = ModelCatalogue(), ModelCatalogue()
    read.update(models_from_json([shown]))
    known, found = table.get(shown["model_id"]), read.get(shown["model_id"])
    assert found.is_listed
    assert (found.max_characters, found.concurrency_group) == (known.max_characters, known.concurrency_group)
    assert known.credits_per_character in (None, found.credits_per_character)
    assert known.performs_tags == listed.is_expressive
    assert known.takes_context <= (not listed.refuses_context)


def test_the_longest_name_of_a_family_decides():
    catalogue = ModelCatalogue()
    assert catalogue.get("eleven_flash_v2_5_fast").max_characters == 40_000
    assert catalogue.get("eleven_flash_v2_x").max_characters == 30_000
    assert catalogue.get("eleven_v30").max_characters is None


@pytest.mark.parametrize(("model_id", "characters", "credits"), [(FLASH, 3, 2), ("eleven_v3", 3, 3), ("x", 3, None)])
def test_the_price_is_rounded_up(model_id: str, characters: int, credits: int | None):
    assert ModelCatalogue().get(model_id).credits_for(characters) == credits


@pytest.mark.parametrize(
    ("model_id", "speaks"),
    [
        (FLASH, True),
        ("eleven_v9", True),
        ("my-own.model_1", True),
        ("scribe_v2", False),
        ("eleven_english_sts_v2", False),
    ],
)
def test_a_model_for_other_work_is_recognized(model_id: str, speaks: bool):
    assert is_for_speech(model_id) == speaks


# The list of the provider


def test_price_limits_and_group_of_the_list_replace_the_table():
    catalogue = ModelCatalogue()
    rates = {"character_cost_multiplier": 1.0, "cost_discount_multiplier": 0.25}
    listed = {"maximum_text_length_per_request": 777, "concurrency_group": "standard", "model_rates": rates}
    catalogue.update(models_from_json([{"model_id": FLASH, "can_do_text_to_speech": True, **listed}]))
    flash = catalogue.get(FLASH)
    assert (flash.max_characters, flash.concurrency_group, flash.credits_for(10)) == (777, "standard", 3)
    assert flash.takes_context


def test_an_empty_list_says_nothing():
    catalogue = ModelCatalogue()
    catalogue.update([model("en", "he")])
    catalogue.update([])
    assert catalogue.get(FLASH).is_listed
    assert catalogue.code_for(FLASH, "he") == "he"
    fresh = ModelCatalogue()
    fresh.update([])
    assert fresh.get(FLASH).is_listed is None


def test_a_model_that_vanished_from_the_list_keeps_the_facts_of_the_table():
    catalogue = ModelCatalogue()
    catalogue.update([model("en")])
    catalogue.update([model("en", model_id="eleven_new")])
    assert catalogue.get(FLASH).is_listed is False
    assert catalogue.code_for(FLASH, "de") == "de"


def test_only_the_first_models_of_a_huge_list_are_read():
    def models():
        for number in range(MAX_MODELS):
            yield model("en", model_id=f"m{number}")
        raise AssertionError("the rest of the list was read")

    catalogue = ModelCatalogue()
    catalogue.update(models())
    assert catalogue.get("m999").is_listed


# Refusals


def learned(catalogue: ModelCatalogue, model_id: str, error: ProviderError) -> bool:
    return catalogue.learn(catalogue.fit(replace(REQUEST, model_id=model_id)), error)


@pytest.mark.parametrize(
    ("model_id", "first", "second"),
    [
        ("eleven_v4", Endpoint.TEXT_TO_DIALOGUE, Endpoint.TEXT_TO_SPEECH),
        ("eleven_v3", Endpoint.TEXT_TO_SPEECH, Endpoint.TEXT_TO_DIALOGUE),
    ],
)
def test_the_endpoint_that_accepts_a_model_is_found_once_and_remembered(
    model_id: str, first: Endpoint, second: Endpoint
):
    catalogue = ModelCatalogue()
    assert catalogue.endpoint_for(model_id) is first
    assert learned(catalogue, model_id, BadRequest(cause=Cause.MODEL))
    assert catalogue.endpoint_for(model_id) is second
    catalogue.update([model("en")])
    assert catalogue.endpoint_for(model_id) is second


def test_a_model_that_both_endpoints_refuse_is_requested_once_until_the_list_is_read_again():
    catalogue, refusal = ModelCatalogue(), BadRequest(cause=Cause.MODEL)
    assert [learned(catalogue, "gone", refusal) for _ in range(4)] == [True, False, False, False]
    assert catalogue.endpoint_for("gone") is Endpoint.TEXT_TO_SPEECH
    catalogue.update([model("en")])
    assert learned(catalogue, "gone", refusal)


def test_refused_neighbour_text_is_left_out():
    catalogue = ModelCatalogue()
    assert learned(catalogue, FLASH, BadRequest(cause=Cause.CONTEXT))
    assert catalogue.fit(REQUEST).previous_text is None
    assert not learned(catalogue, FLASH, BadRequest(cause=Cause.CONTEXT))


def test_neighbour_text_is_sent_over_text_to_speech_only():
    catalogue = ModelCatalogue()
    learned(catalogue, "eleven_v4_turbo", BadRequest(cause=Cause.MODEL))
    assert catalogue.fit(replace(REQUEST, model_id="eleven_v4_turbo")).previous_text is None


@pytest.mark.parametrize("error", [ServerError(), BadRequest(), BadRequest(cause=Cause.VOICE_MISSING)])
def test_other_errors_change_nothing(error: ProviderError):
    catalogue = ModelCatalogue()
    before = catalogue.fit(REQUEST)
    assert not catalogue.learn(before, error)
    assert catalogue.fit(REQUEST) == before
