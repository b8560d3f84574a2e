"""Backup and restore of an installation: the database, the journals of this machine, and the recordings.

A backup is one tar file with `manifest.json`, `database.dump` (pg_dump) or `database.sqlite3`, `journal/` and
`recordings/`. Phrases are left out, because they are generated again. The database is left out if somebody else backs
it up, such as the container of PostgreSQL, which has pg_dump.

The order decides that nothing is lost which was acknowledged before: an attempt leaves its journal when it is in the
database, and a recording is written before its row. So journals are copied first, then the database, then recordings.
"""

import json
import os
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.base import File
from django.db import connection

from cloning.models import CloneJob, sample_storage
from usage.ledger import journal

MANIFEST, POSTGRESQL, SQLITE, JOURNALS, RECORDINGS = (
    *("manifest.json", "database.dump", "database.sqlite3"),
    *("journal", "recordings"),
)
VERSION = 1


class BackupFailed(Exception):
    """The message says what failed, and what to do. Nothing was changed, except where it says so."""


def create(folder: Path, *, with_database: bool = True) -> Path:
    """Writes a backup to the folder and returns its file. A file that is not complete never has its final name."""
    now = datetime.now(UTC)
    target = folder / f"voicecare-{now:%Y%m%dT%H%M%SZ}.tar"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".backup-") as work:
        partial = Path(work) / target.name
        with tarfile.open(partial, "w") as archive:
            partial.chmod(0o600)
            for name, content in _journals():
                _add(archive, f"{JOURNALS}/{name}", content)
            if with_database:
                database = _dump(Path(work))
                archive.add(database, database.name)
            _add_recordings(archive)
            vendor = connection.vendor if with_database else None
            manifest = {"version": VERSION, "created_at": now.isoformat(), "database": vendor}
            _add(archive, MANIFEST, json.dumps(manifest).encode())  # last, so that it proves that all is there
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(target)
    return target


def restore(file: Path) -> None:
    """Restores a backup into a new, empty database, this machine's journals and the storage of recordings.

    A backup without a database needs one that has been restored before. Raises BackupFailed.
    """
    try:
        with tarfile.open(file) as archive:
            _check(archive)
            with tempfile.TemporaryDirectory(dir=settings.DATA_DIR, prefix=".restore-") as work:
                archive.extractall(work, filter="data")
                if not {POSTGRESQL, SQLITE}.isdisjoint(archive.getnames()):
                    _load(Path(work))
                _restore_recordings(Path(work) / RECORDINGS)
                _restore_journals(Path(work) / JOURNALS)
    except (tarfile.TarError, OSError) as error:
        raise BackupFailed(f"{file} cannot be read or restored: {error}") from error


def _check(archive: tarfile.TarFile) -> None:
    names = archive.getnames()
    if MANIFEST not in names:
        raise BackupFailed("This is no complete backup of voicecare: it has no manifest.json.")
    manifest: dict[str, Any] = json.load(archive.extractfile(MANIFEST) or BytesIO(b"{}"))
    if manifest.get("version") != VERSION:
        raise BackupFailed("A newer version of voicecare has made this backup. Restore it with that version.")
    has_tables = bool(connection.introspection.table_names())
    if manifest.get("database") is None:
        if not has_tables:
            raise BackupFailed("The backup has no database, and that of DATABASE_URL is empty. Restore it first.")
        return
    if manifest["database"] != connection.vendor:
        raise BackupFailed(f"This is a backup of {manifest['database']}, and DATABASE_URL is {connection.vendor}.")
    if has_tables:
        raise BackupFailed("The database of DATABASE_URL is not empty. Restore into a new one (createdb).")


def _journals() -> Iterator[tuple[str, bytes]]:
    folder = settings.DATA_DIR / journal.FOLDER
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        with suppress(FileNotFoundError):  # its process has just ended
            yield path.name, path.read_bytes()


def _restore_journals(folder: Path) -> None:
    """Puts the journals where the next web process recovers them. Recording an attempt twice is harmless."""
    target = settings.DATA_DIR / journal.FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir() if folder.exists() else ():
        if path.stat().st_size:
            path.rename(target / path.name)


def _dump(folder: Path) -> Path:
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        copy = folder / SQLITE
        with closing(sqlite3.connect(database["NAME"])) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return copy
    copy = folder / POSTGRESQL
    _run("pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={copy}")
    return copy


def _load(folder: Path) -> None:
    if connection.vendor == "sqlite":
        connection.close()
        with (
            closing(sqlite3.connect(folder / SQLITE)) as source,
            closing(sqlite3.connect(connection.settings_dict["NAME"])) as target,
        ):
            source.backup(target)
        return
    # All or nothing: after an error the database is as empty as before.
    options = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
    _run("pg_restore", *options, f"--dbname={connection.settings_dict['NAME']}", str(folder / POSTGRESQL))


def _run(program: str, *arguments: str) -> None:
    """Runs a program of PostgreSQL with the connection of DATABASE_URL. The password is in no argument."""
    database = connection.settings_dict
    variables = {"HOST": "PGHOST", "PORT": "PGPORT", "USER": "PGUSER", "PASSWORD": "PGPASSWORD", "NAME": "PGDATABASE"}
    given = {variables[name]: str(database[name]) for name in variables if database[name]}
    options = database.get("OPTIONS", {})
    given |= {f"PG{name.upper()}": options[name] for name in ("sslmode", "sslrootcert") if name in options}
    try:
        subprocess.run([program, *arguments], env={**os.environ, **given}, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BackupFailed(f"{program} is not installed. Install the client programs of PostgreSQL.") from error
    except subprocess.CalledProcessError as error:
        raise BackupFailed(f"{program} failed. {' '.join(error.stderr.split())}") from error


def _add_recordings(archive: tarfile.TarFile) -> None:
    storage = sample_storage()
    for name in CloneJob.objects.exclude(sample="").values_list("sample", flat=True):
        try:
            with storage.open(name) as recording:
                content = recording.read()
        except FileNotFoundError:  # its time has run out, or the consent was withdrawn meanwhile
            continue
        _add(archive, f"{RECORDINGS}/{name}", content)


def _restore_recordings(folder: Path) -> None:
    storage = sample_storage()
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not storage.exists(name):
            with path.open("rb") as content:
                storage.save(name, File(content))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    archive.addfile(member, BytesIO(content))
