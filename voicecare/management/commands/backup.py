"""`python manage.py backup FOLDER` writes a backup of the installation, while it runs (docs/backup.md)."""

from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from voicecare.management import backups


class Command(BaseCommand):
    help = (
        "Write a backup of the database, the recordings and this machine's journals to a new file in FOLDER. "
        "Everything may run meanwhile."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, metavar="FOLDER")
        parser.add_argument(
            "--no-database", action="store_true", help="without the database, which you have just dumped yourself"
        )

    def handle(self, *, folder: Path, no_database: bool, **options: object) -> None:
        try:
            file = backups.create(folder, with_database=not no_database)
        except (backups.BackupFailed, DatabaseError, OSError) as error:
            raise CommandError(f"No backup was made. {error}") from error
        self.stdout.write(f"{file} ({file.stat().st_size:,} bytes)")
