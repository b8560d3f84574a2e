"""`manage.py backup` and `restore`: the test database is backed up, and restored into a new one of the same kind."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from django.conf import settings as project
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from cloning.models import CloneJob, sample_storage
from tests.conftest import Member, database_url
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ROOT, ServerProcess, environment
from tests.services import S3Process
from tests.tts.cache.stores import configured
from tts.models import Phrase, Utterance
from tts.outbox import store as outbox
from usage.ledger import journal
from voicecare.infrastructure import storages
from voicecare.management import backups

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(900)]

LOOK = """
import django, sys
django.setup()
from cloning.models import CloneJob
from voicecare.patients.authentication import authenticate_device
print(authenticate_device(sys.argv[1]).patient.name, CloneJob.objects.get().pk)
"""


@pytest.fixture
def data_dir(settings: Settings, tmp_path: Path) -> Path:
    """The data directory of this process: recordings and journals."""
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    settings.STORAGES = {**settings.STORAGES, "samples": storages.private_file_storage(settings.DATA_DIR / "samples")}
    return settings.DATA_DIR


@pytest.fixture
def empty_database(tmp_path: Path) -> Iterator[str]:
    """The URL of a new database beside the test database."""
    if connection.vendor == "sqlite":
        yield f"sqlite:///{tmp_path / 'restored.sqlite3'}"
        return
    url = database_url()
    name = f"{urlsplit(url).path[1:]}_restored"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f'DROP DATABASE IF EXISTS "{name}"')
        server.execute(f'CREATE DATABASE "{name}"')
        yield url.replace(urlsplit(url).path, f"/{name}")
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def backup(folder: Path) -> Path:
    out = StringIO()
    call_command("backup", str(folder), stdout=out)
    return Path(out.getvalue().split(" (")[0])


def run(url: str, data_dir: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    env = environment(DATABASE_URL=url, VOICECARE_DATA_DIR=data_dir, SECRET_KEY=project.SECRET_KEY)
    env |= {"PATH": "/usr/bin:/bin", "DJANGO_SETTINGS_MODULE": "voicecare.settings"}
    env |= {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "PHRASE_STORE"))}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, text=True, capture_output=True, check=False, timeout=800
    )


def test_what_was_there_is_there_again(
    alice: Member, data_dir: Path, empty_database: str, tmp_path: Path, clone_of: Callable[[Member], CloneJob]
):
    job = clone_of(alice)
    (data_dir / journal.FOLDER).mkdir()
    (data_dir / journal.FOLDER / "0123").write_text('{"an": "attempt"}\n')
    file = backup(tmp_path / "backups")
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]

    other = tmp_path / "other"
    restored = run(empty_database, other, "manage.py", "restore", str(file))
    assert (restored.returncode, restored.stderr) == (0, "")
    found = run(empty_database, other, "-c", LOOK, alice.token)
    assert found.stdout.strip() == f"Alice Archer {job.pk}", found.stderr
    assert (other / "samples" / job.sample).read_bytes() == b"a recording"
    assert (other / journal.FOLDER / "0123").read_text() == '{"an": "attempt"}\n'

    again = run(empty_database, other, "manage.py", "restore", str(file))
    assert again.returncode == 1
    assert again.stderr.startswith("CommandError: Nothing was restored. The database of DATABASE_URL is not empty.")


@pytest.fixture
def clone_of() -> Callable[[Member], CloneJob]:
    def make(member: Member) -> CloneJob:
        name = sample_storage().save("recording", ContentFile(b"a recording"))
        fields = {"sample": name, "consent_by": "Ann", "consent_wording": "1", "content_type": "audio/wav"}
        return CloneJob.objects.create(patient=member.patient, name="Ann", sample_digest="0" * 64, **fields)

    return make


STATES = """
import django
django.setup()
from tts.models import Utterance
from cloning.models import CloneJob, sample_storage
print(sorted(f"{row.pk} {row.state}" for row in Utterance.objects.all()))
print(sample_storage().open(CloneJob.objects.get().sample).read())
"""


@pytest.fixture
def bucket(data_dir: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Process]:
    """A bucket with phrases and recordings, for this process and for those that it starts."""
    with S3Process() as s3:
        for name, value in {**s3.environment, "PHRASE_STORE": "s3"}.items():
            monkeypatch.setenv(name, value)
        settings.STORAGES = configured()["STORAGES"]
        yield s3


async def test_a_restored_installation_with_a_new_bucket_speaks(
    alice: Member,
    sandbox: SandboxProcess,
    data_dir: Path,
    bucket: S3Process,
    empty_database: str,
    tmp_path: Path,
    clone_of: Callable[[Member], CloneJob],
):
    """Database, bucket and data directory are lost. Nothing is missing that was acknowledged before the backup."""
    phrase = (await in_database(Phrase.objects.create, text="This phrase is in the bucket.")).text
    await in_database(clone_of, alice)
    variables = {"ELEVENLABS_BASE_URL": sandbox.url, "SECRET_KEY": project.SECRET_KEY}
    env = environment(DATABASE_URL=database_url(), VOICECARE_DATA_DIR=data_dir, **variables)
    with ServerProcess(env, tmp_path / "before.log") as server:
        async with Device(server.ws, alice.token) as device:
            await device.start(greeting=False)
            sources = [(await device.speak(phrase)).terminal["source"] for _ in range(2)]
            await device.end()
        assert sources == ["live", "cache"]
        waiting = await in_database(
            outbox.submit, alice.patient.pk, "This waits for a device.", expires_in_s=900, author=None
        )
    before = await in_database(lambda: sorted(f"{row.pk} {row.state}" for row in Utterance.objects.all()))
    assert f"{waiting.pk} waiting" in before
    file = await in_database(backup, tmp_path / "backups")

    bucket.kill()
    bucket.start()  # on the same port, and empty
    shutil.rmtree(data_dir)
    other = tmp_path / "other"
    restored = run(empty_database, other, "manage.py", "restore", str(file))
    assert (restored.returncode, restored.stderr) == (0, "")
    found = run(empty_database, other, "-c", STATES)
    assert found.stdout.splitlines() == [str(before), str(b"a recording")], found.stderr
    env = environment(DATABASE_URL=empty_database, VOICECARE_DATA_DIR=other, **variables)
    with ServerProcess(env, tmp_path / "after.log") as server:
        async with Device(server.ws, alice.token) as device:
            await device.start(greeting=False)
            assert (await device.wait_for(f"srv-{waiting.pk}")).terminal["type"] == "speech.finished"
            sources = [(await device.speak(phrase)).terminal["source"] for _ in range(2)]
        assert sources == ["live", "cache"]  # generated again once


def test_a_missing_recording_does_not_stop_a_backup(
    alice: Member, data_dir: Path, tmp_path: Path, clone_of: Callable[[Member], CloneJob]
):
    sample_storage().delete(clone_of(alice).sample)
    with tarfile.open(backup(tmp_path / "backups")) as archive:
        assert not [name for name in archive.getnames() if name.startswith("recordings/")]
        assert archive.getnames()[-1] == "manifest.json"


def test_pg_dump_verifies_the_certificate_of_the_database_as_the_server_does(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if connection.vendor != "postgresql":
        pytest.skip("for PostgreSQL only")
    program = tmp_path / "bin/pg_dump"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor last; do :; done\necho "$PGSSLMODE $PGSSLROOTCERT" > "${last#--file=}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    connection.ensure_connection()  # before its settings change
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"sslmode": "verify-full", "sslrootcert": "/ca.pem"})
    with tarfile.open(backup(tmp_path / "backups")) as archive:
        content = archive.extractfile("database.dump")
        assert content is not None
        assert content.read() == b"verify-full /ca.pem\n"


def test_a_backup_that_fails_leaves_no_file(data_dir: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=r"^No backup was made\. "):
        backup(tmp_path / "file")


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({}, "it has no manifest.json"),
        ({"manifest.json": b'{"version": 2, "database": "sqlite"}'}, "A newer version of voicecare"),
        ({"manifest.json": b'{"version": 1, "database": "oracle"}'}, "This is a backup of oracle"),
    ],
)
def test_a_file_that_is_no_backup_changes_nothing(
    data_dir: Path, tmp_path: Path, members: dict[str, bytes], problem: str
):
    file = tmp_path / "file.tar"
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            backups._add(archive, name, content)
    with pytest.raises(CommandError, match=problem):
        call_command("restore", str(file))


def test_a_file_that_is_no_archive_is_one_line(data_dir: Path, tmp_path: Path):
    (tmp_path / "file.tar").write_text("nothing")
    with pytest.raises(CommandError, match=r"file\.tar cannot be read or restored"):
        call_command("restore", str(tmp_path / "file.tar"))
