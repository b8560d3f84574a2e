"""Rebuilds the daily totals from the ledger's events, after a change of USAGE_TIME_ZONE or to check the totals."""

from argparse import ArgumentParser
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand

from usage.ledger import rollup


class Command(BaseCommand):
    help = "Rebuild daily usage from the ledger's events. Safe to run while the server is running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="first", type=date.fromisoformat, help="first day, for example 2026-01-31")
        parser.add_argument("--to", dest="last", type=date.fromisoformat, help="last day (inclusive)")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Django's own signature
        days = rollup.rebuild(options["first"], options["last"])
        self.stdout.write(f"Rebuilt {days} days.")
