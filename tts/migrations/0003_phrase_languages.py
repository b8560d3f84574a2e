"""Phrases in another spelling of a language (`nb`, `deu`, `german`) move to its code, by which they are looked up.

A phrase stays where it is if its language already has that text, greeting or hold message. A language with a region
(`de-at`) stays as well, because its phrases were not spoken before.
"""

from importlib import import_module

from django.db import migrations, models

from voicecare.core.languages import code_of

NAMES = import_module("voicecare.patients.migrations.0003_language_codes").CODES


def language_to_code(apps, schema_editor):
    Phrase = apps.get_model("tts", "Phrase")
    for phrase in Phrase.objects.exclude(language__contains="-").order_by("pk"):
        code = NAMES.get(phrase.language.strip().casefold()) or code_of(phrase.language)
        if code == phrase.language:
            continue
        others = Phrase.objects.filter(language=code)
        single = phrase.kind in ("greeting", "holding") and others.filter(kind=phrase.kind).exists()
        if not single and not others.filter(text=phrase.text).exists():
            Phrase.objects.filter(pk=phrase.pk).update(language=code)


class Migration(migrations.Migration):
    dependencies = [("tts", "0002_queue_reason_and_plain_names")]

    operations = [
        migrations.RunPython(language_to_code, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="phrase",
            name="language",
            field=models.CharField(
                default="en", help_text="The language of its listeners.", max_length=10
            ),
        ),
    ]
