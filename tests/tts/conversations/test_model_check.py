"""What administrators are told about the model, in words."""

from collections.abc import Callable

import pytest
from pytest_django import Settings

from tests.conftest import Member
from tts.conversations.model_check import find_model_problems
from voicecare.providers.elevenlabs.models import ModelCatalogue
from voicecare.providers.elevenlabs.responses import models_from_json

FLASH = "eleven_flash_v2_5"


def listed(model_id: str, **fields: object) -> ModelCatalogue:
    catalogue = ModelCatalogue()
    catalogue.update(models_from_json([{"model_id": model_id, "can_do_text_to_speech": True, **fields}]))
    return catalogue


@pytest.fixture
def patients(member: Callable[..., Member]) -> None:
    member("Alice Archer", language="en-GB")
    member("Nora Nilsen", language="nb", speech_rate="0.80")
    member("Hanna Hecht", language="he")


@pytest.mark.parametrize(
    ("model", "problems"),
    [
        (FLASH, ["eleven_flash_v2_5 does not list these languages of patients: Hebrew."]),
        ("eleven_v4", ["eleven_v4 has no speech rate. All patients hear its normal rate."]),
        (
            "eleven_multilingual_v2",
            [
                "eleven_multilingual_v2 does not list these languages of patients: Hebrew, Norwegian.",
                "eleven_multilingual_v2 is not told the language. It guesses it for: English.",
            ],
        ),
        ("eleven_flash_v2", ["eleven_flash_v2 does not list these languages of patients: Hebrew, Norwegian."]),
        (
            "eleven_next",
            [
                "It is not known whether eleven_next follows the speech rate of patients.",
                "eleven_next is not told the language. It guesses it for: English, Hebrew, Norwegian.",
            ],
        ),
    ],
)
def test_what_patients_would_lose_is_said(patients: None, settings: Settings, model: str, problems: list[str]):
    settings.ELEVENLABS_MODEL_ID = model
    found = find_model_problems(ModelCatalogue())
    assert [problem.text for problem in found] == problems
    assert not any(problem.is_fatal for problem in found)


def test_a_model_that_suits_all_patients_has_no_problem(member: Callable[..., Member], settings: Settings):
    member("Nora Nilsen", language="de", speech_rate="0.80")
    settings.ELEVENLABS_MODEL_ID = FLASH
    assert find_model_problems(listed(FLASH)) == []


def test_a_rate_that_nobody_has_is_no_loss(member: Callable[..., Member], settings: Settings):
    member("Alice Archer", language="en")
    settings.ELEVENLABS_MODEL_ID = "eleven_v3"
    assert find_model_problems(ModelCatalogue()) == []


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"can_do_text_to_speech": False}, "eleven_flash_v2_5 cannot speak texts."),
        ({"maximum_text_length_per_request": 200}, "eleven_flash_v2_5 takes 200 characters in a request."),
    ],
)
@pytest.mark.django_db
def test_a_model_that_cannot_speak_is_a_failure(settings: Settings, fields: dict, text: str):
    settings.ELEVENLABS_MODEL_ID = FLASH
    [problem] = find_model_problems(listed(FLASH, **fields))
    assert problem.is_fatal
    assert problem.text.startswith(text)


@pytest.mark.django_db
def test_a_model_that_the_provider_does_not_list_is_reported(settings: Settings):
    settings.ELEVENLABS_MODEL_ID = FLASH
    [problem] = find_model_problems(listed("eleven_other"))
    assert problem.text == "The provider does not list eleven_flash_v2_5. It may have been removed or renamed."
