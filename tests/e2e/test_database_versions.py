"""A web process on a database that an older or a newer version has migrated."""

import json
from collections.abc import Callable

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.server import ServerProcess
from tests.waiting import eventually
from voicecare.health.database import is_migrated

NEWER = ("usage", "9999_of_next_year")


@pytest.fixture
def recorder(transactional_db: None) -> MigrationRecorder:
    return MigrationRecorder(connection)


@pytest.mark.parametrize("app", ["accounts", "audit", "cloning", "patients", "tts", "usage"])
def test_each_app_of_ours_is_compared(recorder: MigrationRecorder, app: str):
    assert is_migrated()
    first = min(name for its_app, name in recorder.applied_migrations() if its_app == app)
    recorder.record_unapplied(app, first)
    try:
        assert not is_migrated()
    finally:
        recorder.record_applied(app, first)


async def test_a_web_process_waits_for_the_migration_of_its_version(
    own_server: Callable[..., ServerProcess], recorder: MigrationRecorder
) -> None:
    await in_database(recorder.record_unapplied, "usage", "0001_initial")
    try:
        server = own_server(untouched=True)
        status, body = server.get("/readyz")
        assert (status, json.loads(body)) == (503, {"status": "migrations missing"})
    finally:
        await in_database(recorder.record_applied, "usage", "0001_initial")
    await eventually(lambda: server.get("/readyz")[0], wanted=lambda status: status == 200)


async def test_a_web_process_speaks_on_a_database_of_a_newer_version(
    own_server: Callable[..., ServerProcess], recorder: MigrationRecorder, alice: Member
) -> None:
    await in_database(recorder.record_applied, *NEWER)
    try:
        server = own_server()
        async with Device(server.ws, alice.token) as device:
            await device.start(greeting=False)
            spoken = await device.speak("The tables of the next version are here already.")
    finally:
        await in_database(recorder.record_unapplied, *NEWER)
    assert spoken.terminal["type"] == "speech.finished"
