"""`python manage.py sandbox_fault NAME` makes the sandbox provider fail.

So you can hear what a patient would hear.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from contextlib import closing
from typing import Any

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from usage.alerts import lost_voices
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.sandbox.scenarios import OFF, SCENARIOS

TIMEOUT_S = (1, 5)


class Command(BaseCommand):
    help = "Make the sandbox provider of `make run` fail. Only one failure is active at a time:\n\n" + "\n".join(
        f"  {name:<14}{scenario.effect}" for name, scenario in SCENARIOS.items()
    )
    requires_system_checks = ()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:  # noqa: ANN401
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", choices=SCENARIOS)

    def handle(self, *, name: str, **options: object) -> None:
        if not settings.USE_SANDBOX:
            raise CommandError(
                "The real provider is in use (ELEVENLABS_API_KEY or ELEVENLABS_API_KEY_FILE is set). Faults only work "
                "with the sandbox."
            )
        url = settings.ELEVENLABS_BASE_URL
        try:
            reply = requests.post(f"{url}/sandbox/scenario", {"name": name}, timeout=TIMEOUT_S, allow_redirects=False)
        except requests.RequestException as error:
            raise CommandError(
                f"The sandbox does not run at {url}. Start it with `make run`. If you use another PORT, also set "
                "SANDBOX_PORT to the next number, for example SANDBOX_PORT=9001 for PORT=9000."
            ) from error
        if reply.status_code != requests.codes.see_other:
            raise CommandError(f"The server at {url} is not the sandbox: HTTP {reply.status_code}.")
        if name == OFF:  # voicecare has marked rejected voices as gone. Those that the sandbox has are usable again.
            with closing(AccountClient(url, "sandbox")) as client:
                existing = [voice.voice_id for voice in client.voices()]
            for voice in Voice.objects.filter(state=Voice.State.GONE, provider_id__in=existing):
                lost_voices.restore(voice)
        self.stdout.write(f"{name}: {SCENARIOS[name].effect}")
