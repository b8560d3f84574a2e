"""Hints reach the broker after the commit, and a broker in trouble costs nobody time. Each test's sender is a process
of its own, so that its end is seen too.
"""

import json
import os
import socket
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ROOT, free_port

BEGIN = """
import time, django
django.setup()
from django.db import transaction
from voicecare.core.task_queue import enqueue_on_commit
"""
TWO = """
began = time.monotonic()
enqueue_on_commit("tts.warm_patient", "one")
enqueue_on_commit("tts.warm_patient", "two")
print(time.monotonic() - began, flush=True)
"""
IN_TRANSACTIONS = """
try:
    with transaction.atomic():
        enqueue_on_commit("tts.warm_patient", "rolled back")
        raise ValueError
except ValueError:
    enqueue_on_commit("tts.warm_patient", "outside")
with transaction.atomic():
    enqueue_on_commit("tts.warm_patient", "inside")
    enqueue_on_commit("tts.warm_patient", "before the commit")
    time.sleep(0.3)
    enqueue_on_commit("tts.remove_audio")
"""


def child(folder: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    settings = {"DJANGO_SETTINGS_MODULE": "voicecare.settings", "VOICECARE_DATA_DIR": str(folder), "SECRET_KEY": "s"}
    own = {"DATABASE_URL": f"sqlite:///{folder}/hints.sqlite3", "REDIS_URL": ""}
    return subprocess.run(
        [sys.executable, "-c", BEGIN + script],
        cwd=ROOT,
        env={**os.environ, **settings, **own, **env},
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )


def published(folder: Path) -> list[tuple[str, list[str]]]:
    """What lies in the broker's folder, in the order of its arrival: names of tasks and what they were sent with."""
    paths = sorted((folder / "broker" / "queue").glob("*.msg"), key=lambda path: path.stat().st_mtime_ns)
    messages = [json.loads(path.read_bytes()) for path in paths]
    return [(message["headers"]["task"], json.loads(b64decode(message["body"]))[0]) for message in messages]


@pytest.fixture
def silent_broker() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def test_hints_are_in_the_broker_when_the_process_has_ended(tmp_path: Path) -> None:
    child(tmp_path, TWO)
    assert published(tmp_path) == [("tts.warm_patient", ["one"]), ("tts.warm_patient", ["two"])]


def test_a_hint_waits_for_the_commit_and_is_not_sent_where_there_is_none(tmp_path: Path) -> None:
    child(tmp_path, IN_TRANSACTIONS)
    assert [args for _, args in published(tmp_path)] == [["outside"], ["inside"], ["before the commit"], []]


@pytest.mark.parametrize("trouble", ["silent", "absent"])
def test_a_broker_in_trouble_costs_no_time_and_raises_nothing(trouble: str, tmp_path: Path, silent_broker: str) -> None:
    url = silent_broker if trouble == "silent" else f"redis://127.0.0.1:{free_port()}/0"
    done = child(tmp_path, TWO, REDIS_URL=url)
    assert float(done.stdout.splitlines()[0]) < 0.5
    assert (done.stdout + done.stderr).count("task_queue.message_lost") == 2
