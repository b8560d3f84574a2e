"""Fixtures: a folder for recordings per test, the sandbox as the provider, and clone jobs."""

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

RECORDING = b"ID3 a recording"  # the sandbox checks only the first bytes


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
    """Creates a job of Alice with a stored recording, like a job that was just submitted."""

    def make(**fields: object) -> CloneJob:
        patient = fields.pop("patient", alice.patient)
        defaults = {"content_type": "audio/mpeg", "consent_by": "Anna Archer", "consent_wording": "2026-11"}
        created = CloneJob(**{"patient": patient, "name": "Anna", **defaults, **fields})
        if "sample" not in fields:
            created.sample = sample_storage().save(str(created.pk), ContentFile(RECORDING))
        created.sample_digest = created.sample_digest or created.pk.hex
        created.save(force_insert=True)
        return created

    return make
