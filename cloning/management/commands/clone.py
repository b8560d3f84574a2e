"""`python manage.py clone PATIENT FILE --consent-by NAME`: clones a voice from the command line."""

import time
import uuid
from functools import partial
from pathlib import Path

from django.core.files import File
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q

from cloning.jobs import runner, submission
from cloning.models import CloneJob
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.core.errors import VoicecareError
from voicecare.patients.models import Patient

TIMEOUT_S = 600.0
POLL_INTERVAL_S = 0.5


class Command(BaseCommand):
    help = "Clone the voice in a recording for a patient. The patient hears it from the next conversation on."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("patient", help="id or full name of the patient")
        parser.add_argument("file", type=Path, help="MP3, WAV or M4A, at least 60 seconds, at most 10 MB")
        parser.add_argument("--consent-by", required=True, help="name of the person who speaks and has consented")
        parser.add_argument("--name", help="name of the voice; default: the name of the person who has consented")
        parser.add_argument(
            "--remove-background-noise", action="store_true", help="let the provider remove background noise"
        )

    def handle(
        self,
        *,
        patient: str,
        file: Path,
        consent_by: str,
        name: str | None,
        remove_background_noise: bool,
        **options: object,
    ) -> None:
        patient_row = _find_patient(patient)
        try:
            with file.open("rb") as recording:
                job = submission.submit(
                    patient=patient_row,
                    name=(name or consent_by)[:100],
                    sample=File(recording),
                    consent_by=consent_by,
                    witness=None,
                    on_submit=partial(record, None, Action.ADD),
                    remove_background_noise=remove_background_noise,
                )
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from error
        except VoicecareError as error:
            raise CommandError(f"{error.code}: {error.message}") from error
        for warning in job.report.get("warnings", []):
            self.stdout.write(f"note: {warning}")
        self._follow(job)
        if job.status != CloneJob.Status.READY:
            raise CommandError(
                f"{job.status}: {job.error_message or 'it continues in the background'} (clone {job.pk})"
            )
        self.stdout.write(f"The voice is {job.voice_id} (clone {job.pk}). {job.error_message}".rstrip())

    def _follow(self, job: CloneJob) -> None:
        """Makes attempts until the job has ended, for at most TIMEOUT_S, and prints each new state.

        The attempts are made in this process, so that no Celery worker is needed.
        """
        deadline, shown = time.monotonic() + TIMEOUT_S, ""
        while time.monotonic() < deadline:
            runner.run(job.pk)
            job.refresh_from_db()
            if (progress := f"{job.status} {job.error_message}".rstrip()) != shown:
                self.stdout.write(progress)
                shown = progress
            if job.status not in (CloneJob.Status.PENDING, CloneJob.Status.UPLOADING):
                return
            time.sleep(POLL_INTERVAL_S)


def _find_patient(id_or_name: str) -> Patient:
    try:
        query = Q(pk=uuid.UUID(id_or_name))
    except ValueError:
        query = Q(name=id_or_name)
    found = list(Patient.objects.remaining().filter(query)[:10])
    if len(found) == 1:
        return found[0]
    ids = ", ".join(str(patient.pk) for patient in found)
    raise CommandError(f"Several patients have this name. Use an id: {ids}" if found else "There is no such patient.")
