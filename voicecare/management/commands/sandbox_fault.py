"""`python manage.py sandbox_fault NAME`: has the built-in provider fail, so that each degradation can be heard."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.sandbox.scenarios import OFF, SCENARIOS

TIMEOUT_S = (1, 5)


class Command(BaseCommand):
    help = "Have the built-in provider of `make run` fail. Each name replaces the one before:\n\n" + "\n".join(
        f"  {name:<12}{scenario.effect}" for name, scenario in SCENARIOS.items()
    )
    requires_system_checks = ()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:  # noqa: ANN401
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", choices=SCENARIOS)

    def handle(self, *, name: str, **options: object) -> None:
        if not settings.USE_SANDBOX:
            raise CommandError("The real provider is in use (ELEVENLABS_API_KEY is set): it takes no faults on order.")
        _order(name)
        if name == OFF:
            _find_voices_again()
        self.stdout.write(f"{name}: {SCENARIOS[name].effect}")


def _order(name: str) -> None:
    url = f"{settings.ELEVENLABS_BASE_URL}/sandbox/scenario"
    try:
        reply = requests.post(url, data={"name": name}, timeout=TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as error:
        raise CommandError(
            f"The sandbox does not run at {settings.ELEVENLABS_BASE_URL}: start it with `make run`. If that has "
            "another PORT, name the sandbox's, which is the next one: SANDBOX_PORT=9001 for PORT=9000."
        ) from error
    if reply.status_code != requests.codes.see_other:
        raise CommandError(f"What runs at {settings.ELEVENLABS_BASE_URL} is not the sandbox: HTTP {reply.status_code}.")


def _find_voices_again() -> None:
    """A voice that was refused is marked as gone here; what the sandbox has is usable again."""
    client = AccountClient(settings.ELEVENLABS_BASE_URL, settings.ELEVENLABS_API_KEY or "sandbox")
    try:
        there = [voice.voice_id for voice in client.voices()]
    finally:
        client.close()
    Voice.objects.filter(state=Voice.State.GONE, provider_id__in=there).update(state=Voice.State.USABLE)
