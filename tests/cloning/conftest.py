"""Recordings in a folder of each test's own, and the sandbox as the provider that cloning asks."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from pytest_django import Settings

from cloning.models import CloneJob, sample_storage
from tests.conftest import Member
from tests.sandbox import SandboxProcess
from voicecare.infrastructure.storages import private_file_storage

RECORDING = b"ID3 a recording"  # the sandbox looks at the beginning alone


@pytest.fixture(autouse=True)
def sample_folder(settings: Settings) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="voicecare-samples-"))
    settings.STORAGES = {**settings.STORAGES, "samples": private_file_storage(folder)}
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def provider(sandbox: SandboxProcess, settings: Settings) -> SandboxProcess:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    return sandbox


@pytest.fixture
def job(alice: Member) -> Callable[..., CloneJob]:
    """Makes a job of Alice's with a stored recording, as one that has just been submitted."""

    def make(**fields: object) -> CloneJob:
        patient = fields.pop("patient", alice.patient)
        kept = {"content_type": "audio/mpeg", "consent_by": "Anna Archer", "consent_wording": "2026-11"}
        made = CloneJob(**{"patient": patient, "name": "Anna", **kept, **fields})
        if "sample" not in fields:
            made.sample = sample_storage().save(str(made.pk), ContentFile(RECORDING))
        made.sample_digest = made.sample_digest or made.pk.hex
        made.save(force_insert=True)
        return made

    return make
