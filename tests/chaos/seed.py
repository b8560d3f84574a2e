"""`python -m tests.chaos.seed PATIENTS DELIVERIES`: empties the database and creates patients with deliveries.

Prints JSON in its last line: for each patient the token of a device and the ids of the deliveries, in order. The
environment names the database.
"""

import json
import os
import sys

import django
from django.core.management import call_command

TEXT = "This is the message number {number} for you."


def seed(patients: int, deliveries: int) -> list[dict[str, object]]:
    from tts.outbox import store
    from voicecare.patients.models import Device, Patient, Voice

    Voice.objects.create(provider_id="21m00Tcm4TlvDq8ikWAM", name="Rachel")  # a stock voice of the sandbox
    members = []
    for number in range(patients):
        patient = Patient.objects.create(name=f"Patient {number}", companion_name="Clara")
        members.append((patient, Device.objects.issue(patient, "bedside")[1], []))
    for number in range(deliveries):
        for patient, _, ids in members:
            row = store.submit(patient.id, TEXT.format(number=number), expires_in_s=900, author=None)
            ids.append(f"srv-{row.id}")
    return [{"patient": str(patient.id), "token": token, "deliveries": ids} for patient, token, ids in members]


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voicecare.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    call_command("flush", verbosity=0, interactive=False)
    print(json.dumps(seed(int(sys.argv[1]), int(sys.argv[2]))))
