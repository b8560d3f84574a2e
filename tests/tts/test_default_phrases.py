"""The phrases that every installation has after its first `migrate`."""

from importlib import import_module

import pytest
from django.apps import apps
from django.core.management import call_command
from django.forms import modelform_factory

from tests.conftest import OTHER_VOICE, Member
from tts.admin.phrases import PhraseForm
from tts.cache.planning import active_patients, load_audiences, required_clips
from tts.conversations.lifecycle import render_greeting
from tts.models import Phrase
from voicecare.core.languages import LANGUAGES

LANGUAGES_WITH_PHRASES = ["de", "en", "es", "fr", "it", "nl", "pt"]

migration = import_module("tts.migrations.0006_default_phrases")


@pytest.fixture
def default_phrases(db: None) -> None:
    migration.add_phrases(apps, None)


def texts(kind: str, language: str = "en") -> set[str]:
    return set(Phrase.objects.filter(kind=kind, language=language).values_list("text", flat=True))


@pytest.mark.django_db(transaction=True)
def test_migrate_adds_the_phrases_once_and_keeps_changes_and_deletions():
    call_command("migrate", "tts", "0005", verbosity=0)
    Phrase.objects.create(language="de", kind="greeting", text="Grüß Gott, {patient_name}.")
    call_command("migrate", verbosity=0)
    assert texts("greeting", "de") == {"Grüß Gott, {patient_name}."}
    assert texts("common") == {"That's wonderful!", "I see.", "Tell me more."}
    Phrase.objects.filter(text="I see.").update(text="I understand.")
    Phrase.objects.filter(text="Tell me more.").delete()
    Phrase.objects.exclude(language="en").delete()
    changed = list(Phrase.objects.values())
    call_command("migrate", verbosity=0)
    assert list(Phrase.objects.values()) == changed


def test_each_language_has_a_greeting_a_hold_message_and_three_responses(default_phrases, alice: Member):
    found = Phrase.objects.order_by().values_list("language", flat=True).distinct()
    assert sorted(found) == LANGUAGES_WITH_PHRASES
    for language in found:
        (greeting,) = texts("greeting", language)
        rendered = render_greeting(greeting, alice.patient.form_of_address, alice.patient.companion_name)
        assert "Alice Archer" in rendered
        assert "Clara" in rendered
        assert [len(texts(kind, language)) for kind in ("holding", "common")] == [1, 3]


def test_the_admin_accepts_the_phrases(default_phrases):
    form_class = modelform_factory(Phrase, PhraseForm, fields=["kind", "language", "text"])
    for phrase in Phrase.objects.all():
        data = {"kind": phrase.kind, "language": phrase.language, "text": phrase.text}
        form = form_class(data, instance=phrase)
        assert form.is_valid(), form.errors
        assert form.cleaned_data["language"] in LANGUAGES


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["greeting", "holding", "common"])
def test_a_language_that_has_a_phrase_gets_no_others(kind: str):
    """The installation may have no greeting on purpose."""
    Phrase.objects.create(language="fr", kind=kind, text="Je comprends.")
    before = list(Phrase.objects.values())
    migration.add_phrases(apps, None)
    assert list(Phrase.objects.filter(language="fr").values()) == before
    assert [len(texts(kind, "nl")) for kind in ("greeting", "holding", "common")] == [1, 1, 3]


def test_only_phrases_in_the_languages_of_patients_are_generated(default_phrases, alice: Member, member):
    member("Hugo", voice=OTHER_VOICE, language="fr-CA")
    specs = required_clips(load_audiences(active_patients()), list(Phrase.objects.all()), "eleven_flash_v2_5")
    assert sorted({spec.speech_settings.language for spec in specs}) == ["en", "fr"]
    assert len(specs) == 2 * 5
