"""`python manage.py doctor` checks an installation, one line for each part. Exits with 1 if a part does not work."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from voicecare.health.doctor import Extent, examine
from voicecare.health.parts import Part

FIELDS = ("name", "title", "status", "state", "advice")
LABELS = {"ok": "ok  ", "warning": "warn", "failure": "FAIL"}


class Command(BaseCommand):
    help = (
        "Check everything that an installation needs: one line for each part, with what to do. Exits with 1 if one "
        "does not work. Warnings do not count."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--url",
            nargs="?",
            const=settings.PUBLIC_URL,
            default="",
            help="also check TLS and the proxy through this address of the server (without a value: PUBLIC_URL)",
        )
        parser.add_argument("--no-speech", action="store_true", help="have nothing spoken, which costs 6 characters")
        parser.add_argument("--test-alert", action="store_true", help="also send a test alert through each channel")

    def handle(self, **options: Any) -> None:  # noqa: ANN401 - the values of the options
        if options["url"] and not options["url"].startswith(("http://", "https://")):
            raise CommandError(f"{options['url']} is no address like https://voice.example.org.")
        found: list[Part] = []
        for part in examine(Extent(not options["no_speech"], options["test_alert"], options["url"])):
            found.append(part)
            if not options["json"]:
                self._write(part)
        failures = [part.title for part in found if part.status == "failure"]
        if options["json"]:
            rows = [{name: getattr(part, name) for name in FIELDS} for part in found]
            self.stdout.write(json.dumps({"status": "failure" if failures else "ok", "parts": rows}, indent=2))
        if failures:
            raise CommandError(f"{len(failures)} of {len(found)} parts do not work: {', '.join(failures)}.")

    def _write(self, part: Part) -> None:
        style = {"ok": self.style.SUCCESS, "warning": self.style.WARNING, "failure": self.style.ERROR}[part.status]
        advice = f". {part.advice}" if part.status != "ok" and part.advice else ""
        self.stdout.write(f"{style(LABELS[part.status])} {part.title}: {part.state.rstrip('.')}{advice}")
        self.stdout.flush()
