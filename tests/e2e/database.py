"""Make the test database unusable for a while, from outside the server: locked, or with one table missing."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from django.apps import apps
from django.db import OperationalError, connection, transaction

from tests.e2e.rows import in_database

# SQLite's readers do not wait for a writer, so BEGIN EXCLUSIVE would let every SELECT pass. In WAL mode a reader needs
# one of the locks on bytes 123 to 127 of the -shm file, and a writer needs the lock on byte 120. A process that holds
# all of them locks out all others. A child process holds them, because a process loses its POSIX locks on a file when
# it closes any handle of that file.
_HOLD = """
import fcntl, sys, time
file = open(sys.argv[1] + "-shm", "r+b")
deadline = time.monotonic() + 10
while True:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 8, 120)
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.005)
print("locked", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked_database() -> AsyncGenerator[None, None]:
    """No other process can read or write any row."""
    sqlite = connection.vendor == "sqlite"
    async with _locked_file() if sqlite else _locked_tables():
        yield


@asynccontextmanager
async def _locked_file() -> AsyncGenerator[None, None]:
    path = connection.settings_dict["NAME"]
    assert await asyncio.to_thread(Path(f"{path}-shm").exists)
    holder = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", _HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        line = await asyncio.to_thread(holder.stdout.readline)
        assert line == b"locked\n"
        yield
    finally:
        holder.stdin.close()
        holder.stdout.close()
        await asyncio.to_thread(holder.wait, 10)


@asynccontextmanager
async def _locked_tables() -> AsyncGenerator[None, None]:
    taken, release = threading.Event(), threading.Event()
    names = ", ".join(connection.ops.quote_name(model._meta.db_table) for model in apps.get_models())

    def hold() -> None:
        deadline = time.monotonic() + 10
        while not taken.is_set():
            try:
                with transaction.atomic(), connection.cursor() as cursor:
                    # A lock that waits for one table while it holds another can deadlock with the server's statements.
                    cursor.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE NOWAIT")
                    taken.set()
                    release.wait(60)
            except OperationalError:
                if taken.is_set() or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    holding = asyncio.create_task(in_database(hold))
    try:
        assert await asyncio.to_thread(taken.wait, 10)
        yield
    finally:
        release.set()
        await holding


@asynccontextmanager
async def missing_table(table: str) -> AsyncGenerator[None, None]:
    """Inside the block every statement on this table fails with a database error."""
    await in_database(_rename, table, f"{table}_away")
    try:
        yield
    finally:
        await in_database(_rename, f"{table}_away", table)


def _rename(old: str, new: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f'ALTER TABLE "{old}" RENAME TO "{new}"')
