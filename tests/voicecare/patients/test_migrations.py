"""The data migrations of the languages, run on rows as earlier versions have written them, and the online indexes."""

from importlib import import_module

import pytest
from django.apps import apps
from django.db import migrations
from django.db.migrations.loader import MigrationLoader

from tests.conftest import Member
from tts.models import Phrase
from voicecare.core.languages import LANGUAGES
from voicecare.infrastructure.online_indexes import AddIndexOnline
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("German", "de"),
        ("english", "en"),
        ("Norwegian", "no"),
        ("Français", "fr"),
        ("de-AT", "de-AT"),
        ("nb", "nb"),
        ("xx", "xx"),
    ],
)
def test_the_name_of_a_language_becomes_its_code(alice: Member, before: str, after: str):
    Patient.objects.update(language=before)
    migration = import_module("voicecare.patients.migrations.0003_language_codes")
    migration.name_to_code(apps, None)
    assert Patient.objects.get().language == after
    assert set(migration.CODES.values()) <= set(LANGUAGES)


def test_phrases_move_to_the_code_by_which_they_are_looked_up():
    for language, kind, text in [
        ("nb", "greeting", "Hei!"),
        ("nb", "common", "Ja."),
        ("nn", "greeting", "Hei hei!"),
        ("nn", "common", "Ja."),
        ("iw", "common", "ken"),
        ("de", "common", "Ja."),
        ("german", "greeting", "Guten Tag!"),
        ("german", "common", "Ja."),
        ("deu", "greeting", "Hallo!"),
        ("deu", "common", "Nein."),
        ("de-at", "common", "Servus."),
        ("klingon", "common", "HIja'."),
    ]:
        Phrase.objects.create(language=language, kind=kind, text=text)
    migration = import_module("tts.migrations.0003_phrase_languages")
    migration.language_to_code(apps, None)
    assert sorted(Phrase.objects.values_list("language", "text")) == [
        ("de", "Guten Tag!"),
        ("de", "Ja."),
        ("de", "Nein."),
        ("de-at", "Servus."),
        ("deu", "Hallo!"),
        ("german", "Ja."),
        ("he", "ken"),
        ("klingon", "HIja'."),
        ("nn", "Hei hei!"),
        ("nn", "Ja."),
        ("no", "Hei!"),
        ("no", "Ja."),
    ]
    assert set(Phrase.objects.for_language("nb-NO").values_list("text", flat=True)) == {"Hei!", "Ja."}


def test_a_migration_that_adds_indexes_online_does_nothing_else():
    """It is not atomic, so any other operation would fail when the migration is repeated after a failed index."""
    online = [
        migration
        for migration in MigrationLoader(None).disk_migrations.values()
        if any(isinstance(operation, AddIndexOnline) for operation in migration.operations)
    ]
    assert len(online) == 4
    for migration in online:
        assert not migration.atomic
        repeatable = (AddIndexOnline, migrations.AlterField)
        assert all(isinstance(operation, repeatable) for operation in migration.operations), migration
