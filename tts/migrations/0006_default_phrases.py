"""The phrases of a new installation: a greeting, a hold message and three common responses in seven languages.

They address the patient formally. A language that already has a phrase gets none, because an installation may have no
greeting on purpose. The migration runs once, so phrases that an administrator changes or deletes later stay as they are.
"""

from django.db import migrations

# In each language the greeting, the hold message, and the common responses. The forms fit every gender. The Portuguese
# avoids a pronoun, because Portugal and Brazil use different ones.
PHRASES = {
    "de": (
        "Guten Tag, {patient_name}, hier ist {ai_name}. Schön, bei Ihnen zu sein.",
        "Einen Moment, bitte. Ich bin gleich für Sie da.",
        ("Das ist ja wunderbar!", "Ich verstehe.", "Erzählen Sie mir mehr."),
    ),
    "en": (
        "Hello {patient_name}, this is {ai_name}. It is good to be with you.",
        "One moment, please. I will be with you in a minute.",
        ("That's wonderful!", "I see.", "Tell me more."),
    ),
    "es": (
        "Hola, {patient_name}, le habla {ai_name}. Es un placer estar con usted.",
        "Un momento, por favor. Enseguida estoy con usted.",
        ("¡Qué maravilla!", "Entiendo.", "Cuénteme más."),
    ),
    "fr": (
        "Bonjour {patient_name}, c'est {ai_name}. C'est un plaisir d'être avec vous.",
        "Un moment, s'il vous plaît. Je suis à vous dans un instant.",
        ("C'est merveilleux !", "Je comprends.", "Dites-m'en plus."),
    ),
    "it": (
        "Salve, {patient_name}, sono {ai_name}. È un piacere parlare con Lei.",
        "Un momento, per favore. Sono subito da Lei.",
        ("Che meraviglia!", "Capisco.", "Mi dica di più."),
    ),
    "nl": (
        "Goedendag {patient_name}, u spreekt met {ai_name}. Fijn om bij u te zijn.",
        "Een ogenblik, alstublieft. Ik ben zo bij u.",
        ("Wat geweldig!", "Ik begrijp het.", "Vertelt u mij daar meer over."),
    ),
    "pt": (
        "Olá, {patient_name}, aqui fala {ai_name}. É um prazer podermos conversar.",
        "Um momento, por favor. Já continuamos.",
        ("Que maravilha!", "Compreendo.", "Conte-me mais."),
    ),
}


def add_phrases(apps, schema_editor):
    Phrase = apps.get_model("tts", "Phrase")
    with_phrases = set(Phrase.objects.values_list("language", flat=True))
    for language, (greeting, hold_message, common) in PHRASES.items():
        if language not in with_phrases:
            new = [("greeting", greeting), ("holding", hold_message), *(("common", text) for text in common)]
            Phrase.objects.bulk_create(Phrase(language=language, kind=kind, text=text) for kind, text in new)


class Migration(migrations.Migration):
    dependencies = [("tts", "0005_indexes_for_growing_tables")]

    operations = [migrations.RunPython(add_phrases, migrations.RunPython.noop)]
