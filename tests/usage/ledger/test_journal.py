"""The journal keeps attempts of a killed process, which are recovered exactly once."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.db import DatabaseError, OperationalError

from tests.e2e.database import missing_table
from tests.server import ROOT
from tts.recorder import Recorder
from usage.ledger import events
from usage.ledger.events import Attempt
from usage.ledger.journal import Journal, open_journal, recover
from usage.models import UsageEvent
from voicecare.core.batches import RowsFailed

APPEND_AND_DIE = """
import os, sys, uuid
from pathlib import Path
from usage.ledger.journal import Journal
from usage.ledger.events import Attempt
journal = Journal(Path(sys.argv[1]))
for number in range(3):
    journal.append(Attempt(uuid.UUID(int=7), number, 1, "live", 60, patient_id=uuid.UUID(int=9), model="flash"))
os.write(journal._file, b'{"source": "cut in the mid')
os.kill(os.getpid(), 9)
"""


def attempt(segment: int = 0, **fields: object) -> Attempt:
    return Attempt(uuid.uuid4(), segment, 1, "live", 60, **fields)


def end_process(journal: Journal) -> None:
    """Releases the lock, as the end of the process would."""
    os.close(journal._file)


class Recorded(list[Attempt]):
    def __call__(self, attempts: Sequence[Attempt]) -> None:
        self.extend(attempts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def run_and_kill(folder: Path) -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "voicecare.settings"}
    code = f"import django; django.setup(){APPEND_AND_DIE}"
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -9


def test_the_attempts_of_a_killed_process_are_recovered_once(folder: Path):
    run_and_kill(folder)
    recorded = Recorded()
    assert recover(folder, recorded) == 3
    assert [(one.source_id, one.segment, one.attempt) for one in recorded] == [
        (uuid.UUID(int=7), n, 1) for n in range(3)
    ]
    assert {(one.kind, one.requested_characters, one.patient_id, one.model, one.outcome) for one in recorded} == {
        ("live", 60, uuid.UUID(int=9), "flash", "unknown")
    }
    assert recover(folder, recorded) == 0
    assert list(folder.iterdir()) == []


def test_a_recovered_attempt_has_all_its_identifying_fields(folder: Path):
    ids = {name: uuid.uuid4() for name in ("conversation_id", "patient_id", "voice_id")}
    original = Attempt(
        uuid.uuid4(), 4, 11, "retry", 300, **ids, model="m", started_at=datetime(2026, 3, 1, 12, 0, 1, 5, tzinfo=UTC)
    )
    journal, recorded = Journal(folder), Recorded()
    journal.append(original)
    end_process(journal)
    recover(folder, recorded)
    assert recorded == [original]


def test_the_journal_of_a_living_process_is_not_recovered(folder: Path):
    journal, recorded = Journal(folder), Recorded()
    journal.append(attempt())
    assert recover(folder, recorded) == 0
    journal.append(attempt())
    end_process(journal)
    assert recover(folder, recorded) == 2


def test_attempts_in_the_database_are_not_recovered(folder: Path):
    journal, recorded = Journal(folder), Recorded()
    journal.append(attempt())
    position = journal.position()
    journal.truncate(position)
    journal.append(attempt(1))
    end_process(journal)
    assert recover(folder, recorded) == 1
    assert [one.segment for one in recorded] == [1]


def test_attempts_appended_during_the_database_write_are_kept(folder: Path):
    journal, recorded = Journal(folder), Recorded()
    journal.append(attempt())
    position = journal.position()
    journal.append(attempt(1))
    journal.truncate(position)
    end_process(journal)
    assert recover(folder, recorded) == 2


def test_closing_deletes_the_file(folder: Path):
    Journal(folder).close()
    assert list(folder.iterdir()) == []


def test_a_young_empty_file_is_kept(folder: Path):
    journal = Journal(folder)
    end_process(journal)
    recover(folder, Recorded())
    assert len(list(folder.iterdir())) == 1
    long_ago = time.time() - 120
    os.utime(journal._path, (long_ago, long_ago))
    recover(folder, Recorded())
    assert list(folder.iterdir()) == []


def test_attempts_that_could_not_be_recorded_are_recovered_later(folder: Path):
    def refuse(attempts: Sequence[Attempt]) -> None:
        raise OperationalError("the database is unavailable")

    journal, recorded = Journal(folder), Recorded()
    journal.append(attempt())
    end_process(journal)
    with pytest.raises(OperationalError, match="unavailable"):
        recover(folder, refuse)
    assert recover(folder, recorded) == 1


def test_a_missing_folder_recovers_nothing(folder: Path):
    assert recover(folder, Recorded()) == 0


def test_a_failed_append_is_logged_and_raises_nothing(folder: Path, caplog: pytest.LogCaptureFixture):
    journal = Journal(folder)
    end_process(journal)
    journal.append(attempt())
    assert "journal.write_failed" in caplog.text


def test_a_failed_open_is_logged_and_returns_none(folder: Path, caplog: pytest.LogCaptureFixture):
    folder.write_text("no folder at all")
    assert open_journal(folder) is None
    assert "journal.open_failed" in caplog.text


def test_appending_after_close_does_not_write_to_another_file(folder: Path, tmp_path: Path):
    journal = Journal(folder)
    journal.close()
    with (tmp_path / "another").open("wb") as another:  # gets the file descriptor number of the journal
        journal.append(attempt())
        assert os.fstat(another.fileno()).st_size == 0


def test_nothing_that_is_appended_after_close_is_lost(folder: Path):
    journal, recorded = Journal(folder), Recorded()
    journal.close()
    journal.truncate(journal.position())
    journal.append(attempt())
    journal.append(attempt(1))
    end_process(journal)
    assert recover(folder, recorded) == 2


def test_closing_keeps_a_file_with_attempts(folder: Path):
    journal, recorded = Journal(folder), Recorded()
    journal.append(attempt())
    journal.close()
    journal.close()
    assert recover(folder, recorded) == 1


def test_a_file_that_cannot_be_recorded_does_not_stop_the_others(folder: Path):
    bad, good, recorded = Journal(folder), Journal(folder), Recorded()
    bad.append(attempt(7))
    good.append(attempt(1))
    for journal in (bad, good):
        end_process(journal)

    def refuse_bad(attempts: Sequence[Attempt]) -> None:
        if attempts[0].segment == 7:
            raise ValueError("refused")
        recorded.extend(attempts)

    with pytest.raises(RowsFailed):
        recover(folder, refuse_bad)
    assert [one.segment for one in recorded] == [1]
    assert [path.name for path in folder.iterdir()] == [bad._path.name]


def test_the_file_is_private_and_contains_neither_text_nor_name(folder: Path):
    journal = Journal(folder)
    journal.append(attempt(patient_id=uuid.uuid4()))
    assert journal._path.stat().st_mode & 0o777 == 0o600
    content = journal._path.read_text()
    assert "text" not in content
    assert "name" not in content


@pytest.mark.django_db
def test_recording_a_recovered_attempt_twice_counts_once(folder: Path):
    known, unknown = attempt(), attempt()
    known.mark_answered("r", 30)
    events.record_attempts([known])
    journal = Journal(folder)
    journal.append(known)
    journal.append(unknown)
    end_process(journal)
    recover(folder, events.record_attempts)
    assert set(UsageEvent.objects.values_list("source", "outcome", "characters")) == {
        (known.source_id, "completed", 60),
        (unknown.source_id, "unknown", 0),
    }


@pytest.mark.django_db(transaction=True)
async def test_the_recorder_truncates_the_journal_after_writing_the_rows(folder: Path):
    recorder = Recorder(Journal(folder))
    live, cached = attempt(), attempt()
    cached.outcome, cached.saved_characters, cached.kind = "completed", 60, "cache"
    recorder.record(live)
    recorder.record(cached)  # not billed, so it is not in the journal
    assert recorder.journal._path.read_bytes().count(b"\n") == 1
    await recorder.flush()
    assert recorder.journal._path.read_bytes() == b""
    recorder.journal.close()


def lines(folder: Path) -> list[int]:
    """Return the number of lines of each file."""
    return [path.read_bytes().count(b"\n") for path in folder.iterdir()]


@pytest.mark.django_db(transaction=True)
async def test_what_is_recorded_after_close_is_written(folder: Path):
    recorder = Recorder(Journal(folder))
    recorder.record(attempt())
    await recorder.close()
    assert lines(folder) == []
    late = attempt()
    recorder.record(late)
    assert lines(folder) == [1]
    await recorder.flush()
    assert lines(folder) == [0]
    assert await UsageEvent.objects.filter(source=late.source_id).aexists()


@pytest.mark.django_db(transaction=True)
async def test_closing_without_a_database_keeps_the_journal(folder: Path):
    recorder, recorded = Recorder(Journal(folder)), Recorded()
    recorder.record(attempt())
    async with missing_table(UsageEvent._meta.db_table):
        with pytest.raises(DatabaseError):
            await recorder.close()
    assert recover(folder, recorded) == 1
    await recorder.flush()
