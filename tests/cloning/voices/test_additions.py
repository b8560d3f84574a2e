"""A stock voice that is added by its id: the provider is asked first, and clones are refused."""

import pytest
from pytest_django import Settings

from cloning.voices import additions
from tests.cloning import at_provider
from tests.conftest import OTHER_VOICE, Member
from tests.sandbox import SandboxProcess
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db

UNANSWERED = "http://127.0.0.1:1"


def refusal(provider_id: str) -> str:
    before = Voice.objects.count()
    with pytest.raises(additions.VoiceNotAdded) as refused:
        additions.add_stock_voice(provider_id)
    assert Voice.objects.count() == before
    return refused.value.message


def test_a_voice_gets_the_details_of_the_provider(provider: SandboxProcess):
    labels = {"language": "de", "gender": "female", "age": "old", "accent": "austrian"}
    voice_id = provider.add_voice("Greta", category="professional", labels=labels, rate=2.0)["voice_id"]
    added = Voice.objects.get(pk=additions.add_stock_voice(voice_id).pk)
    assert (added.provider_id, added.name, added.source, added.state) == (voice_id, "Greta", "stock", "usable")
    assert (added.category, added.languages, added.gender) == ("professional", "de", "female")
    assert (added.age, added.accent, added.price_rate) == ("old", "austrian", 2.0)
    assert added.read_at is not None


@pytest.mark.parametrize("voice_id", ["totally-wrong", "../models", "a/b", "."])
def test_an_unknown_id_is_refused(provider: SandboxProcess, voice_id: str):
    assert "no voice with this id" in refusal(voice_id)


def test_a_voice_of_the_list_is_refused(provider: SandboxProcess):
    additions.add_stock_voice(OTHER_VOICE)
    assert "in the list already. Its name is Sarah" in refusal(OTHER_VOICE)


def test_the_clone_of_a_patient_is_refused(provider: SandboxProcess, alice: Member):
    Voice.objects.create(provider_id="clone", name="Anna", source="cloned", patient=alice.patient, state="withdrawn")
    message = refusal("clone")
    assert "the clone of a patient" in message
    assert "Anna" not in message
    assert "a clone of a person" in refusal(at_provider.add(provider, "Made elsewhere"))


def test_a_refused_key_is_named(provider: SandboxProcess):
    provider.settings(api_key="another key")
    assert "refuses the API key. Check ELEVENLABS_API_KEY." in refusal(OTHER_VOICE)


def test_a_provider_that_is_down_is_named(settings: Settings):
    settings.ELEVENLABS_BASE_URL = UNANSWERED
    message = refusal(OTHER_VOICE)
    assert "could not be checked" in message
    assert "could not be reached. Try again later." in message
