"""`python manage.py sandbox_fault NAME` makes the sandbox provider fail.

So you can hear what a patient would hear.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from voicecare.management import sandbox_faults
from voicecare.providers.elevenlabs.sandbox.scenarios import SCENARIOS


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
        try:
            sandbox_faults.choose(name)
        except sandbox_faults.SandboxError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{name}: {SCENARIOS[name].effect}")
