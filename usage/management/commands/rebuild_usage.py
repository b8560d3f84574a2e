"""Sums daily usage anew from the ledger's events, for a changed USAGE_TIME_ZONE or when a figure is doubted."""

from argparse import ArgumentParser
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand

from usage.ledger import rollup


class Command(BaseCommand):
    help = "Sums daily usage anew from the ledger's events. It may run while everything else does."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="first", type=date.fromisoformat, help="first day, as 2026-01-31")
        parser.add_argument("--to", dest="last", type=date.fromisoformat, help="last day, that day included")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Django's own signature
        days = rollup.rebuild(options["first"], options["last"])
        self.stdout.write(f"Summed {days} days.")
