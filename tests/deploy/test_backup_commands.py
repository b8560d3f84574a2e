"""The commands of docs/backup.md for Docker Compose, on a PostgreSQL server of this machine in place of containers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from django.conf import settings

from tests.server import ROOT
from tests.services import PostgresProcess, binary

STAND_INS = ROOT / "tests/deploy/stand_ins"
SEED = """
import django
django.setup()
from django.core.files.base import ContentFile
from cloning.models import CloneJob, sample_storage
from voicecare.patients.models import Device, Patient
patient = Patient.objects.create(name="Ada Lind", companion_name="Clara")
fields = {"sample_digest": "0" * 64, "consent_by": "Ann", "consent_wording": "1", "content_type": "audio/wav"}
sample = sample_storage().save("recording", ContentFile(b"a recording"))
CloneJob.objects.create(patient=patient, name="Ann", sample=sample, **fields)
print(Device.objects.issue(patient, "bedside")[1])
"""
LOOK = """
import django, sys
django.setup()
from cloning.models import CloneJob, sample_storage
from voicecare.patients.authentication import authenticate_device
print(authenticate_device(sys.argv[1]).patient.name, sample_storage().open(CloneJob.objects.get().sample).read())
"""


def commands() -> list[str]:
    section = (ROOT / "docs/backup.md").read_text().split("\n## With Docker Compose\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


class Installation:
    """An installation on a PostgreSQL server. `folder` takes the place of /backup."""

    def __init__(self, postgres: PostgresProcess, folder: Path) -> None:
        self.folder, self.data_dir, self._server = folder, folder / "data", postgres.url
        server = urlsplit(postgres.url)
        tools = Path(binary("pg_dump")).parent
        self._env = os.environ | {
            "PATH": f"{folder}/bin:{STAND_INS}:{Path(sys.executable).parent}:{tools}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "DATABASE_URL": postgres.url.replace("/postgres", "/voicecare"),
            "VOICECARE_DATA_DIR": str(self.data_dir),
            "DJANGO_SETTINGS_MODULE": "voicecare.settings",
            "SECRET_KEY": settings.SECRET_KEY,
            "PHRASE_STORE": "file",
            "AWS_STORAGE_BUCKET_NAME": "",
        }

    def create_database(self) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS voicecare")
            connection.execute("CREATE DATABASE voicecare")

    def run(self, *command: str) -> str:
        process = subprocess.run(
            command, cwd=ROOT, env=self._env, text=True, capture_output=True, check=False, timeout=800
        )
        assert process.returncode == 0, process.stderr
        return process.stdout.strip()

    def shell(self, lines: str) -> str:
        """Runs lines of the page. /backup is our folder, and nobody but root could give it to another user."""
        folder = f" {self.folder}"
        return self.run("bash", "-euc", lines.replace(" -o 10001", "").replace(" /backup", folder))


@pytest.mark.timeout(900)
def test_the_commands_for_compose_back_up_and_restore(tmp_path: Path):
    back_up, restore = commands()
    with PostgresProcess() as postgres:
        installation = Installation(postgres, tmp_path)
        installation.create_database()
        installation.run("python", "manage.py", "migrate", "-v", "0")
        token = installation.run("python", "-c", SEED)
        installation.shell(back_up)
        [dump] = tmp_path.glob("*.dump")
        assert dump.with_suffix(".tar").exists()

        shutil.rmtree(installation.data_dir)
        installation.create_database()
        early = f"! python manage.py restore {dump.with_suffix('.tar')} 2>&1"
        assert "that of DATABASE_URL is empty. Restore it first." in installation.shell(early)
        installation.shell(restore.replace("FILE", str(dump.with_suffix(""))))
        assert installation.run("python", "-c", LOOK, token) == "Ada Lind b'a recording'"
