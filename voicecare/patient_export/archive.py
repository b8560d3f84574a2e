"""Writes the ZIP file of a patient's export."""

import json
import mimetypes
import shutil
import zipfile
from collections.abc import Sequence
from typing import IO

import structlog
from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from cloning.models import CloneJob
from voicecare.patient_export.sections import SECTIONS, Section
from voicecare.patients.models import Patient

BATCH_SIZE = 1000

log = structlog.get_logger(__name__)


def write_archive(patient: Patient, file: IO[bytes], sections: Sequence[Section] = SECTIONS) -> None:
    """Writes what is stored about the patient: these sections, and the recordings.

    Holds BATCH_SIZE rows in memory, whatever the size.

    The JSON files have an array with an object for each row. Times are in UTC. Raises DatabaseError and OSError.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        counts = {section.name: _write_section(archive, section, patient) for section in sections}
        recordings = [_write_recording(archive, job) for job in recordings_of(patient)]
        archive.writestr("README.txt", _readme(sections, counts, [name for name in recordings if name]))


def recordings_of(patient: Patient) -> list[CloneJob]:
    """Returns the clone jobs of the patient whose recordings are stored."""
    return list(CloneJob.objects.filter(patient=patient).exclude(sample="").order_by("created_at"))


def _write_section(archive: zipfile.ZipFile, section: Section, patient: Patient) -> int:
    """Returns the number of rows."""
    count = 0
    with archive.open(f"{section.name}.json", "w", force_zip64=True) as member:
        member.write(b"[")
        for row in section.read(patient).iterator(BATCH_SIZE):
            member.write(b",\n" if count else b"\n")
            member.write(json.dumps(row, cls=DjangoJSONEncoder, ensure_ascii=False).encode())
            count += 1
        member.write(b"\n]\n")
    return count


def _write_recording(archive: zipfile.ZipFile, job: CloneJob) -> str:
    """Returns the name of the file, or an empty string if the recording was deleted in the meantime."""
    name = f"recordings/{job.pk}{mimetypes.guess_extension(job.content_type) or '.audio'}"
    try:
        recording = job.open_sample()
    except FileNotFoundError:
        log.warning("export.recording_missing", job=str(job.pk))
        return ""
    with recording, archive.open(name, "w", force_zip64=True) as member:
        shutil.copyfileobj(recording, member)
    return name


def _readme(sections: Sequence[Section], counts: dict[str, int], recordings: list[str]) -> str:
    lines = [
        "What this server stores about one patient",
        "",
        f"Written on {timezone.now():%Y-%m-%d at %H:%M} UTC. Times are in UTC.",
        "The files with the ending .json are texts.",
        "Each has a list, with an entry for each thing of its kind. Any text editor shows them.",
        "",
        *(f"{section.name}.json ({counts[section.name]:,}): {section.about}." for section in sections),
        f"recordings/ ({len(recordings):,}): the recordings from which voices are made, as long as they are kept. The",
        "name of a file is the id in voice_clones.json.",
        "",
        "Not in this file: access tokens of devices, the audio of speech (it is not kept), and what the speech",
        "provider stores. Keep this file safe, and delete it when it is no longer needed.",
    ]
    return "\n".join([*lines, ""])
