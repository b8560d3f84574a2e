"""`python manage.py restore FILE` restores a backup into a new, empty database (docs/backup.md)."""

from argparse import ArgumentParser
from pathlib import Path

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from voicecare.management import backups


class Command(BaseCommand):
    help = (
        "Restore a backup into the empty database of DATABASE_URL, then migrate it. web, worker and beat must not run. "
        "After a backup with --no-database, restore the database first."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")

    def handle(self, *, file: Path, **options: object) -> None:
        try:
            backups.restore(file)
        except (backups.BackupFailed, DatabaseError) as error:
            raise CommandError(f"Nothing was restored. {error}") from error
        call_command("migrate", verbosity=0)
        self.stdout.write("Restored. Start web, worker and beat, then run `python manage.py doctor`.")
