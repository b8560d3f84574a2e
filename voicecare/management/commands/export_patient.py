"""`python manage.py export_patient ID FILE` writes everything that is stored about a patient (docs/operation.md)."""

import os
import uuid
from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError

from voicecare.patient_export.api import record_export
from voicecare.patient_export.archive import write_archive
from voicecare.patients.models import Patient


class Command(BaseCommand):
    help = "Write everything that is stored about a patient to a new ZIP file, which only this user can read."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", type=uuid.UUID, metavar="ID", help="the id of the patient")
        parser.add_argument("file", type=Path, metavar="FILE")

    def handle(self, *, id: uuid.UUID, file: Path, **options: object) -> None:
        patient = Patient.objects.filter(pk=id).first()
        if patient is None:
            raise CommandError("There is no patient with this id.")
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except OSError as error:
            raise CommandError(f"{file} cannot be written ({error.strerror}).") from error
        record_export(None, patient)
        try:
            with os.fdopen(descriptor, "wb") as output:
                write_archive(patient, output)
        except BaseException:
            file.unlink()  # a part of an export must not be taken for all of it
            raise
        self.stdout.write(f"{file} ({file.stat().st_size:,} bytes)")
