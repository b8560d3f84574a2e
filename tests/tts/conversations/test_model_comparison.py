"""What administrators are told about the models that they could choose."""

from collections.abc import Callable

import pytest
from pytest_django import DjangoAssertNumQueries

from tests.conftest import Member
from tts.conversations.model_comparison import MAX_CANDIDATES, Candidate, compare_models
from voicecare.patients.models import Patient
from voicecare.providers.elevenlabs.models import ModelCatalogue
from voicecare.providers.elevenlabs.responses import models_from_json

pytestmark = pytest.mark.django_db

FLASH = "eleven_flash_v2_5"


def account(*models: str, **fields: object) -> ModelCatalogue:
    """The catalogue of an account with these models, which have the same `fields` in the provider's list."""
    catalogue = ModelCatalogue()
    catalogue.update(
        models_from_json([{"model_id": model, "can_do_text_to_speech": True, **fields} for model in models])
    )
    return catalogue


def only_candidate(catalogue: ModelCatalogue, current: str = FLASH) -> Candidate:
    (found,) = compare_models(catalogue, current).candidates
    return found


@pytest.fixture
def patients(member: Callable[..., Member]) -> None:
    member("Alice Archer", language="en-GB")
    member("Nora Nilsen", language="nb", speech_rate="0.80")
    member("Nils Nilsen", language="no")
    member("Hanna Hecht", language="he", speech_rate="1.10")
    Patient.objects.filter(name="Nils Nilsen").update(archived_at="2026-01-01T00:00Z")


CONTEXT = "Sentences are spoken without regard to those before and after, for 3 patients."
FEWER = "The plan allows fewer requests at the same time, so patients wait sooner when many are spoken to."


@pytest.mark.parametrize(
    ("current", "model", "losses"),
    [
        ("eleven_flash_v2_5", "eleven_turbo_v2_5", []),
        ("eleven_flash_v2_5", "eleven_v3", ["The speech rate of 2 patients is ignored.", CONTEXT, FEWER]),
        (
            "eleven_flash_v2_5",
            "eleven_multilingual_v2",
            [
                "It does not list the language of 1 patient: Norwegian (1).",
                "It is not told the language of 1 patient, and guesses it: English (1).",
                FEWER,
            ],
        ),
        (
            "eleven_v3",
            "eleven_flash_v2_5",
            [
                "It does not list the language of 1 patient: Hebrew (1).",
                "Audio tags such as [laughs] are left out, for 3 patients.",
            ],
        ),
        ("eleven_flash_v2_5", "eleven_flash_v2", ["It does not list the language of 1 patient: Norwegian (1)."]),
        (
            "eleven_flash_v2_5",
            "eleven_next",
            [
                "It is not known whether it follows the speech rate of 2 patients.",
                "It is not told the language of 2 patients, and guesses it: English (1), Norwegian (1).",
                CONTEXT,
                "It is not known how it reads numbers and abbreviations, for 3 patients.",
                FEWER,
            ],
        ),
    ],
)
def test_losses_are_those_against_the_current_model(patients: None, current: str, model: str, losses: list[str]):
    assert only_candidate(account(current, model), current).losses == losses


def test_without_patients_nothing_is_lost():
    assert only_candidate(account(FLASH, "eleven_v3")).losses == []


def test_patients_are_read_with_one_query(patients: None, django_assert_num_queries: DjangoAssertNumQueries):
    with django_assert_num_queries(1):
        compare_models(account(FLASH, "eleven_v3", "eleven_v4"), FLASH)


@pytest.mark.parametrize(
    ("current", "model", "ratio"),
    [(FLASH, "eleven_v3", 2.0), ("eleven_v3", FLASH, 0.5), (FLASH, "eleven_v4", None), ("eleven_v4", FLASH, None)],
)
def test_the_price_is_compared(current: str, model: str, ratio: float | None):
    assert only_candidate(account(current, model), current).price_ratio == ratio


def test_a_current_model_that_is_free_has_no_ratio():
    free = {"model_rates": {"character_cost_multiplier": 0}}
    assert only_candidate(account(FLASH, "eleven_v3", **free)).price_ratio is None


@pytest.mark.parametrize(
    ("fields", "obstacle"),
    [
        ({}, ""),
        ({"can_do_text_to_speech": False}, "It does not speak texts."),
        ({"maximum_text_length_per_request": 200}, "It takes 200 characters in a request. 300 are needed."),
    ],
)
def test_a_model_that_cannot_be_used_has_an_obstacle(fields: dict[str, object], obstacle: str):
    assert only_candidate(account(FLASH, "eleven_v3", **fields)).obstacle == obstacle


def test_models_for_other_work_are_no_candidates():
    found = compare_models(account(FLASH, "scribe_v2", "eleven_english_sts_v2", "eleven_v3"), FLASH)
    assert [candidate.model_id for candidate in found.candidates] == ["eleven_v3"]
    assert found.hidden == 0


def test_a_current_model_that_has_vanished_is_compared_by_what_is_known():
    assert only_candidate(account("eleven_v3")).price_ratio == 2.0


def test_of_a_huge_list_some_are_shown():
    found = compare_models(account(FLASH, *(f"eleven_x{number}" for number in range(900))), FLASH)
    assert (len(found.candidates), found.hidden) == (MAX_CANDIDATES, 900 - MAX_CANDIDATES)


def test_ids_that_cannot_be_stored_are_only_counted():
    found = compare_models(account(FLASH, "x" * 65, "eleven/../v3", "<b>eleven</b>", "eleven_v3"), FLASH)
    assert ([candidate.model_id for candidate in found.candidates], found.hidden) == (["eleven_v3"], 3)


def test_without_a_list_there_is_no_candidate():
    assert compare_models(ModelCatalogue(), FLASH).candidates == []
