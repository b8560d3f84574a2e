"""`python manage.py sandbox` runs the sandbox provider, an imitation of ElevenLabs that needs no account."""

import asyncio
import os

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser


class Command(BaseCommand):
    help = "Run the sandbox, an imitation of the ElevenLabs API, on 127.0.0.1."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--port", type=int, default=settings.SANDBOX_PORT, help="port to listen on; 0 chooses a free port"
        )
        parser.add_argument(
            "--first-byte-ms", type=float, default=120.0, help="time to the first byte of speech, in milliseconds"
        )

    def handle(self, *_args: object, port: int, first_byte_ms: float, **_options: object) -> None:
        # Imported here, because other commands do not need the web server and the encoders.
        from voicecare.providers.elevenlabs.sandbox.server import serve

        try:
            asyncio.run(serve(port, first_byte_ms, self._announce))
        except OSError as error:
            self.stderr.write(f"The sandbox cannot listen on port {port}: {os.strerror(error.errno or 0)}.")
            raise SystemExit(1) from error

    def _announce(self, url: str) -> None:
        self.stdout.write(f"sandbox: {url}")
        self.stdout.flush()
