"""Recordings are deleted after the retention period, and recordings without a row are deleted too."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.utils import timezone
from pytest_django import Settings

from cloning.consent import retention
from cloning.models import CloneJob, sample_storage
from tests.services import S3Process
from tests.tts.cache.stores import configured
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db

Make = Callable[..., CloneJob]


@pytest.fixture
def ended(job: Make) -> Callable[..., CloneJob]:
    def make(days_ago: float, **fields: object) -> CloneJob:
        voice = Voice.objects.create(provider_id=f"v{Voice.objects.count()}", name="V", source="cloned")
        return job(
            **{"status": "ready", "voice": voice, "ended_at": timezone.now() - timedelta(days=days_ago), **fields}
        )

    return make


def stored_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_recordings_are_deleted_after_the_retention_period(
    ended: Callable[..., CloneJob], settings: Settings, sample_folder: Path
):
    settings.CLONE_SAMPLE_RETENTION_DAYS = 3
    ended(3.1)
    ended(3.1, status="failed", error_code="busy")
    recent = ended(2.9)
    assert retention.prune() == 2
    assert stored_names(sample_folder) == {recent.sample}
    assert sorted(CloneJob.objects.values_list("sample", flat=True)) == ["", "", recent.sample]
    assert retention.prune() == 0


def test_with_zero_days_a_recording_is_deleted_when_its_voice_is_ready(
    ended: Callable[..., CloneJob], settings: Settings, sample_folder: Path
):
    settings.CLONE_SAMPLE_RETENTION_DAYS = 0
    ended(0)
    assert (retention.prune(), stored_names(sample_folder)) == (1, set())


@pytest.mark.parametrize("status", ["pending", "uploading", "withdrawing"])
def test_an_unfinished_job_keeps_its_recording(
    status: str, ended: Callable[..., CloneJob], settings: Settings, sample_folder: Path
):
    ended(400, status=status, lease_until=timezone.now())
    assert (retention.prune(), len(stored_names(sample_folder))) == (0, 1)


def test_a_job_that_waits_for_verification_keeps_its_recording(ended: Callable[..., CloneJob]):
    ended(400, requires_verification=True)
    assert retention.prune() == 0


def test_old_recordings_without_a_row_are_deleted(job: Make, sample_folder: Path):
    referenced = job().sample
    names = [sample_storage().save(name, ContentFile(b"ID3")) for name in ("old", "young")]
    two_hours_ago = time.time() - 7200
    for name in (referenced, names[0]):
        os.utime(sample_folder / name, (two_hours_ago, two_hours_ago))
    assert retention.prune_orphans() == 1
    assert stored_names(sample_folder) == {referenced, "young"}


def test_an_unused_storage_has_no_orphans(sample_folder: Path):
    sample_folder.rmdir()
    assert retention.prune_orphans() == 0
    sample_folder.mkdir()


def test_recordings_in_a_bucket_are_private_found_and_deleted(settings: Settings):
    with S3Process() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        settings.STORAGES = configured(**server.environment)["STORAGES"]
        name = sample_storage().save("a-job", ContentFile(b"ID3"))
        with sample_storage().open(name) as file:
            assert file.read() == b"ID3"
        assert sample_storage().exists(name)
        assert "Signature=" in sample_storage().url(name)  # a reader needs a signed URL
        patch.setattr(retention, "ORPHAN_AGE", timedelta(0))
        assert retention.prune_orphans() == 1
        assert not sample_storage().exists(name)
        with pytest.raises(FileNotFoundError):
            sample_storage().open(name)
