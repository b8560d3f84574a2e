"""A write-ahead log of provider attempts that are not in the database yet.

If a process is killed during a request, only the provider knows of the request and bills it. So each attempt is
appended as one line before its request is sent. The write goes to the page cache, which survives the process but not
the machine. The file is truncated when all of it is in the database. The next process recovers the file of a dead
process: it records the attempts as unknown, and reconciliation finds out whether they were billed.
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
from voicecare.core.batches import process_each

FOLDER = "journal"
MIN_AGE_S = 60.0  # between creating and locking its file, a process needs much less

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
    """The journal file of this process, locked as long as the process lives. Not thread-safe.

    Fails open: if the disk is full, speech continues. If the process is then killed, its unwritten attempts are lost.
    Reconciliation shows them as usage by others.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file: int | None = None
        self._size = 0
        self._open()

    def _open(self) -> int:
        self._path = self._folder / uuid.uuid4().hex
        self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)  # a process that locked it first finds it empty and unlocks it
        return self._file

    def append(self, attempt: Attempt) -> None:
        """Append the attempt as one line. The request may be sent when this returns. Logs an error of the disk.

        After `close`, it creates another file.
        """
        try:
            file = self._open() if self._file is None else self._file
            self._size += os.write(file, _serialize(attempt))
        except OSError as error:
            log.warning("journal.write_failed", error=type(error).__name__)

    def position(self) -> int:
        """Return the size of the file in bytes. Take it before writing to the database, and pass it to `truncate`."""
        return self._size

    def truncate(self, position: int) -> None:
        """Empty the file if nothing was appended since `position`. All attempts up to there must be in the database.

        Otherwise it keeps the whole file. Recording an attempt twice is harmless.
        """
        if self._file is not None and self._size == position:
            os.ftruncate(self._file, 0)
            self._size = 0

    def close(self) -> None:
        """Delete the file if all of its attempts are in the database. Otherwise the next process recovers it."""
        if self._file is not None:
            if not self._size:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file, self._size = None, 0  # a late append must not write to another file that gets this number


def open_journal(folder: Path) -> Journal | None:
    """Create the journal of this process. Returns None if the disk fails: then speech continues without a journal."""
    try:
        return Journal(folder)
    except OSError as error:
        log.warning("journal.open_failed", error=type(error).__name__)
        return None


def recover(folder: Path, record_attempts: Callable[[Sequence[Attempt]], object]) -> int:
    """Record the attempts in the journals of dead processes, delete these files, and return the number of attempts.

    Idempotent, because `record_attempts` ignores attempts that it already has. A file is deleted after its attempts
    were recorded. Raises DatabaseError if the database is unavailable, and RowsFailed if a file cannot be recovered.
    """
    recovered = 0

    def recover_file(path: Path) -> None:
        nonlocal recovered
        with suppress(FileNotFoundError), path.open("rb") as file:  # another process may have just recovered it
            is_new = time.time() - path.stat().st_mtime < MIN_AGE_S
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its process is alive and holds the lock
                return
            attempts = list(_parse(file.read()))
            if attempts:
                record_attempts(attempts)
                recovered += len(attempts)
            if attempts or not is_new:
                path.unlink(missing_ok=True)

    try:
        process_each("journal.recover", folder.iterdir() if folder.is_dir() else (), recover_file)
    finally:
        if recovered:
            log.warning("journal.recovered", attempts=recovered)
    return recovered


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
            continue  # the process was killed while it wrote this line
