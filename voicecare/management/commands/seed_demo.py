"""`python manage.py seed_demo`: the demo that `make run` starts with."""

import os
from argparse import ArgumentParser

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from voicecare.management.demo_data import ADMIN, CLINICIAN, Demo, seed

_TEXT = """
voicecare   {site}/admin/
log-in      {admin}, pass phrase {password} ({clinician}: the same, without the admin pages)
provider    {provider}
device      {socket}, subprotocol voicecare.v1
token       {token}
try         {environment}.venv/bin/python manage.py talk "Good morning"
"""


class Command(BaseCommand):
    help = "Make the demo's people, devices, voices and phrases, where they are missing, and say how to use them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 8000))

    def handle(self, *, port: int, **options: object) -> None:
        if not settings.DEBUG:
            raise CommandError("The demo has an administrator whose pass phrase lies on the disk: not with DEBUG off.")
        self.stdout.write(_describe(seed(), port))


def _describe(demo: Demo, port: int) -> str:
    return _TEXT.format(
        site=f"http://127.0.0.1:{port}",
        socket=f"ws://127.0.0.1:{port}/ws/device/",
        admin=ADMIN,
        clinician=CLINICIAN,
        password=demo.password,
        token=demo.token,
        provider="built-in sandbox: no account is used and nothing is billed" if settings.USE_SANDBOX else "ElevenLabs",
        environment="" if port == 8000 else f"PORT={port} ",
    )
