"""Languages that were typed as a name ("German") become codes. Everything else stays as it is and is understood."""

from django.db import migrations, models

CODES = {
    name.casefold(): code
    for code, names in {
        "ar": "Arabic",
        "bg": "Bulgarian",
        "cs": "Czech",
        "da": "Danish Dansk",
        "de": "German Deutsch",
        "el": "Greek",
        "en": "English",
        "es": "Spanish Español",
        "fi": "Finnish Suomi",
        "fr": "French Français",
        "he": "Hebrew",
        "hi": "Hindi",
        "hr": "Croatian",
        "hu": "Hungarian",
        "id": "Indonesian",
        "it": "Italian Italiano",
        "ja": "Japanese",
        "ko": "Korean",
        "nl": "Dutch Nederlands",
        "no": "Norwegian Norsk",
        "pl": "Polish Polski",
        "pt": "Portuguese Português",
        "ro": "Romanian",
        "ru": "Russian",
        "sv": "Swedish Svenska",
        "th": "Thai",
        "tr": "Turkish",
        "uk": "Ukrainian",
        "vi": "Vietnamese",
        "zh": "Chinese",
    }.items()
    for name in names.split()
}


def name_to_code(apps, schema_editor):
    Patient = apps.get_model("patients", "Patient")
    for language in Patient.objects.order_by().values_list("language", flat=True).distinct():
        code = CODES.get(language.strip().casefold())
        if code is not None:
            Patient.objects.filter(language=language).update(language=code)


class Migration(migrations.Migration):
    dependencies = [("patients", "0002_plain_help_texts")]

    operations = [
        migrations.RunPython(name_to_code, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="patient",
            name="language",
            field=models.CharField(
                default="en",
                help_text="The language that the companion speaks. The offline voice cannot read every language.",
                max_length=10,
            ),
        ),
    ]
