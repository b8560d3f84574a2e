"""What this process has asked the provider for and not written to the database yet, in a file that outlives it.

A request that is under way when its process is killed would otherwise be known to nobody but the provider, who bills
it. An attempt is one line, written when it begins and before it is sent; a write to the page cache, which outlives the
process but not the machine. The file is emptied whenever all of it is in the database. That of a process that has died
is recovered by the next one: its attempts are booked as unknown, and reconciliation finds out what became of them.
"""

import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from usage.ledger.events import Attempt

FOLDER = "journal"
MIN_AGE_S = 60.0  # a process needs far less between making its file and locking it

log = structlog.get_logger(__name__)

# Field of Attempt: its key in the file. The keys stay, because a new process reads the files of an old one.
_ID_FIELDS = {"source_id": "source", "conversation_id": "conversation", "patient_id": "patient", "voice_id": "voice"}
_PLAIN_FIELDS = {
    "segment": "segment",
    "attempt": "attempt",
    "kind": "kind",
    "requested_characters": "asked",
    "model": "model",
}


class Journal:
    """The file of this process, which is locked for as long as it lives. Not thread-safe; each call is one write.

    Fails open: on a disk that takes nothing speech goes on, and what a kill loses is told as others' use.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / uuid.uuid4().hex
        self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)  # whoever looks at it meanwhile finds it empty and lets go at once
        self._size = 0

    def append(self, attempt: Attempt) -> None:
        """It may be sent when this returns."""
        try:
            self._size += os.write(self._file, _serialize(attempt))
        except OSError as error:
            log.warning("journal.write_failed", error=type(error).__name__)

    def position(self) -> int:
        """To be taken before the database is written, for `written`."""
        return self._size

    def truncate(self, position: int) -> None:
        """All that was in it at the position is in the database. What came since keeps the whole: it does no harm twice."""
        if self._size == position:
            os.ftruncate(self._file, 0)
            self._size = 0

    def close(self) -> None:
        """All of it is in the database."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1  # who still speaks must not write into what has the number next


def open_journal(folder: Path) -> Journal | None:
    """None on a disk that takes no file: speech goes on without."""
    try:
        return Journal(folder)
    except OSError as error:
        log.warning("journal.open_failed", error=type(error).__name__)
        return None


def recover(folder: Path, record_attempts: Callable[[Sequence[Attempt]], object]) -> int:
    """Books what processes that have died had asked for, and removes their files; returns how many attempts.

    Idempotent: `record_attempts` takes an attempt that it has already for nothing. A file is removed after it was booked.
    """
    recovered = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # another one has just recovered it
            recovered += _recover_file(path, record_attempts)
    if recovered:
        log.warning("journal.recovered", attempts=recovered)
    return recovered


def _recover_file(path: Path, record_attempts: Callable[[Sequence[Attempt]], object]) -> int:
    with path.open("rb") as file:
        is_new = time.time() - path.stat().st_mtime < MIN_AGE_S
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its process lives and holds the lock
            return 0
        attempts = list(_parse(file.read()))
        if attempts:
            record_attempts(attempts)
        if attempts or not is_new:
            path.unlink(missing_ok=True)
    return len(attempts)


def _serialize(attempt: Attempt) -> bytes:
    fields: dict[str, Any] = {key: getattr(attempt, name) for name, key in _PLAIN_FIELDS.items()}
    fields |= {key: str(value) for name, key in _ID_FIELDS.items() if (value := getattr(attempt, name))}
    return json.dumps({**fields, "at": attempt.started_at.isoformat()}).encode() + b"\n"


def _parse(lines: bytes) -> Iterator[Attempt]:
    for line in lines.splitlines():
        try:
            fields = json.loads(line)
            ids: dict[str, Any] = {name: uuid.UUID(fields[key]) for name, key in _ID_FIELDS.items() if key in fields}
            plain: dict[str, Any] = {name: fields[key] for name, key in _PLAIN_FIELDS.items()}
            yield Attempt(**ids, **plain, started_at=datetime.fromisoformat(fields["at"]))
        except (ValueError, KeyError, TypeError):
            continue  # the kill came in the middle of it
