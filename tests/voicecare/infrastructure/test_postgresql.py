"""The sessions of voicecare on a real PostgreSQL server. tests/chaos/two_hosts.py lets a host die in a transaction."""

import json
import os
import subprocess
import sys

import pytest

from tests.server import ROOT
from tests.services import PostgresProcess
from voicecare.infrastructure.postgresql.base import SESSION_SETTINGS

pytestmark = pytest.mark.services

READ = """
import json
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [{names}])
    print(json.dumps(dict(cursor.fetchall())))
"""


def test_the_server_ends_sessions_whose_client_is_gone() -> None:
    with PostgresProcess() as postgres:
        command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", READ.format(names=list(SESSION_SETTINGS))]
        env = {**os.environ, "DATABASE_URL": postgres.url}
        reply = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    assert json.loads(reply.stdout) == SESSION_SETTINGS
