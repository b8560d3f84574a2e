"""Creates the database of the measured server. `python -m tests.bench.seed COUNT` prints the device tokens.

The environment names the database.
"""

import json
import os
import sys

import django
from django.core.management import call_command

PHRASES = tuple(f"This is the phrase number {number}." for number in range(100))  # for the cache measurement


def seed(count: int) -> list[str]:
    """Create this many patients, each with one device, and return the device tokens."""
    from tts.models import Phrase
    from voicecare.patients.models import Device, Patient, Voice

    Voice.objects.create(provider_id="21m00Tcm4TlvDq8ikWAM", name="Rachel")  # a stock voice of the sandbox
    Phrase.objects.all().delete()  # no greeting, which would be part of the measurement
    Phrase.objects.bulk_create([Phrase(text=text) for text in PHRASES])
    patients = [Patient(name=f"Patient {number}", companion_name="Clara") for number in range(count)]
    Patient.objects.bulk_create(patients)
    return [Device.objects.issue(patient, "bench")[1] for patient in patients]


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voicecare.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    print(json.dumps(seed(int(sys.argv[1]))))
