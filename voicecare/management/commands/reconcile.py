"""`python manage.py reconcile` compares the ledger with the provider's figures now. A task does the same every hour.

It also finds out whether attempts with an unknown outcome were billed.
"""

from argparse import ArgumentParser
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from tts.conversations import lifecycle
from usage.ledger import rollup
from usage.models import Reconciliation
from usage.reconciliation import reconciler


class Command(BaseCommand):
    help = "Reconcile all days that are due, as beat does every hour, or one day even if it is done."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--day", type=date.fromisoformat, help="this day only, for example 2026-01-31")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Django's own signature
        now, day = timezone.now(), options["day"]
        if day is not None and day > rollup.day_of(now):
            raise CommandError("That day is in the future.")
        if day is None:
            reconciler.reconcile(now, lifecycle.add_reconciled_characters)
        elif not reconciler.reconcile_day(day, now, lifecycle.add_reconciled_characters, force=True):
            raise CommandError("Another process reconciles that day. Try again later.")
        done = Reconciliation.objects.filter(checked_at=now) if day is None else Reconciliation.objects.filter(day=day)
        for row in done.order_by("day"):
            self.stdout.write(f"{row.day}: {row.explanation}")
