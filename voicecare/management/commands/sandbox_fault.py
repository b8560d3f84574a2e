"""`python manage.py sandbox_fault NAME` makes the sandbox provider fail.

So you can hear what a patient would hear.
"""

import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from usage.provider_state import circuit
from usage.provider_state.circuit import ProviderStatus
from voicecare.management import demo_address, sandbox_faults
from voicecare.providers.elevenlabs.sandbox.scenarios import OFF, SCENARIOS

WAIT_S = 30.0  # the server asks a failed provider again at least every 15 s
POLL_INTERVAL_S = 0.2


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
            sandbox_faults.choose(name, demo_address.sandbox_url())
        except sandbox_faults.SandboxError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{name}: {SCENARIOS[name].effect}")
        if name == OFF:
            self._wait_until_noticed()

    def _wait_until_noticed(self) -> None:
        """Waits until the server knows that the provider works again, because until then speech still fails."""
        deadline, told = time.monotonic() + WAIT_S, ""
        while assumption := _assumption(circuit.read_status()):
            if assumption != told:
                self.stdout.write(f"The server still assumes that {assumption}. Waiting until it has asked again ...")
                self.stdout.flush()
                told = assumption
            if time.monotonic() > deadline:
                raise CommandError(f"The server still assumes it after {WAIT_S:.0f} s. Does `make run` run?")
            time.sleep(POLL_INTERVAL_S)
        self.stdout.write("The server knows that the provider works.")


def _assumption(status: ProviderStatus) -> str:
    """What the server assumes of the provider, as the end of a sentence. Empty if it assumes that it works."""
    if status.access_refused:
        return "the provider refuses the API key"
    if status.quota_exhausted:
        return "the credits are used up"
    return "the provider does not answer" if status.circuit_open else ""
