"""Checks of the database: whether it answers, whether its tables fit the code, and whether its clock fits ours."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from pkgutil import iter_modules

from django.apps import apps
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.utils import NotSupportedError

from voicecare.health.configuration import database_version
from voicecare.health.parts import Part

OWN_APPS = {"accounts", "audit", "patients", "usage", "tts", "cloning"}
CLOCK_WARNING_S = 2.0
CLOCK_FAILURE_S = 30.0  # codes of second factors change every 30 s


def check_database() -> Part:
    """Connects to the database. Never raises."""
    try:
        state = " ".join(database_version())
    except NotSupportedError as error:
        return Part("database", "Database", False, _one_line(error), "Install a newer version of the database.")
    except DatabaseError as error:
        return Part("database", "Database", False, f"does not answer ({_one_line(error)})", "Check DATABASE_URL.")
    return Part("database", "Database", True, state)


def check_migrations() -> Part:
    """Compares the migrations in the database with those of the code. Raises DatabaseError."""
    executor = MigrationExecutor(connection)
    loader = executor.loader
    applied = [app_and_name for app_and_name in loader.applied_migrations or () if app_and_name[0] in OWN_APPS]
    unknown = [f"{app}.{name}" for app, name in applied if (app, name) not in loader.disk_migrations]
    if unknown:
        state = f"the database is newer than this code (it has {', '.join(sorted(unknown)[-3:])})"
        advice = "Start the version of voicecare that migrated it, or restore a backup from before."
        return Part("migrations", "Migrations", False, state, advice)
    missing = executor.migration_plan(loader.graph.leaf_nodes())
    if missing:
        state = f"{len(missing)} migrations have not run"
        return Part("migrations", "Migrations", False, state, "Run `python manage.py migrate`.")
    return Part("migrations", "Migrations", True, "all have run")


def is_migrated() -> bool:
    """Whether all migrations of this code have run. Unlike `check_migrations`, it imports none of them: one query.

    A database of a newer version counts as migrated, because two versions may run beside each other during an upgrade.
    Raises DatabaseError.
    """
    return _own_migrations() <= MigrationRecorder(connection).applied_migrations().keys()


@cache
def _own_migrations() -> frozenset[tuple[str, str]]:
    folders = {app: str(Path(apps.get_app_config(app).path) / "migrations") for app in OWN_APPS}
    return frozenset((app, module.name) for app, folder in folders.items() for module in iter_modules([folder]))


def check_clock() -> Part | None:
    """Compares the clock of this machine with the database's. None for SQLite, which has no other clock.

    Raises DatabaseError.
    """
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        before = datetime.now(UTC)
        cursor.execute("SELECT clock_timestamp()")
        [there] = cursor.fetchone()
        after = datetime.now(UTC)
    return compare_clocks("database", there, before, after)


def compare_clocks(name: str, there: datetime, before: datetime, after: datetime, resolution_s: float = 0.0) -> Part:
    """Returns the part about the clock of another machine, which was read between two times of this machine.

    The other clock counts in steps of `resolution_s` seconds.
    """
    early, late = (before - there).total_seconds(), (there - after).total_seconds()
    difference = max(0.0, early - resolution_s, late)
    advice = "Let NTP set the clocks: leases, logins with two factors, signatures and certificates depend on them."
    return Part(
        f"clock_{name}",
        f"Clock and {name}",
        difference < CLOCK_FAILURE_S,
        f"they differ by {difference:.1f} s" if difference >= CLOCK_WARNING_S else "they agree",
        advice,
        warns=difference >= CLOCK_WARNING_S,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
