"""`python manage.py setup` leads through a first installation. It can be repeated: it keeps what exists."""

import getpass
import os
import secrets
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from voicecare.core import languages
from voicecare.management import first_install
from voicecare.management.first_install import FirstPatient, StepFailed

_DEVICE = """
The token of the device is {token}
It is not shown again. The device connects to {socket} with it.
"""
_TALK = """
Start `honcho start`. Then hear the first greeting with a command that acts as the device:

    python manage.py talk --url {local} --token {token} "Good morning"
"""


class Command(BaseCommand):
    help = (
        "Set up a new installation: administrator, key, voices, phrases, alerts, first patient and device. Asks for "
        "what is missing. Running it again keeps what exists."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-input", action="store_true", help="ask nothing; use the options and their defaults")
        parser.add_argument("--admin", help="user name of the administrator (default: admin)")
        parser.add_argument("--admin-email", default="", help="mail address of the administrator")
        parser.add_argument(
            "--default-voice", default="", help="name or id of the default voice; else the server chooses"
        )
        parser.add_argument("--test-alert", action="store_true", help="send a test alert without asking")
        parser.add_argument("--patient", help="name of the first patient")
        parser.add_argument("--companion", help="name of the patient's AI companion")
        parser.add_argument("--language", help="language of the patient, such as de (default: en)")
        parser.add_argument("--device", default="Bedside tablet", help="name of the patient's device")

    def handle(self, **options: Any) -> None:  # noqa: ANN401 - the values of the options
        self._asks = not options["no_input"]
        self._failed = 0
        try:
            self._run(options)
        except (KeyboardInterrupt, EOFError):
            raise CommandError(
                "Setup was interrupted. Run it again: it keeps what exists. Without a terminal, use --no-input."
            ) from None
        if self._failed:
            raise CommandError(f"{self._failed} of the steps above need attention. Run setup again afterwards.")

    def _run(self, options: dict[str, Any]) -> None:
        if not self._step("Database", first_install.check_database):
            raise CommandError("Setup needs a migrated database.")
        self._step("Administrator", lambda: self._administrator(options["admin"], options["admin_email"]))
        has_provider = self._step("Provider", first_install.check_key)
        if has_provider:
            self._step("Voices", first_install.read_voices)
            self._step("Default voice", lambda: first_install.choose_default_voice(options["default_voice"]))
        self._step("Broker", first_install.check_broker)
        token = self._first_patient(options)
        self._step("Phrases", first_install.check_phrases)
        test_alert = options["test_alert"] or (
            self._asks and self._ask("Send a test alert? (yes or no)", "yes").lower().startswith("y")
        )
        self._step("Alerts", lambda: first_install.check_alerts(send_test=test_alert))
        if missing := first_install.missing_processes():
            self.stdout.write(f"next Background work: {missing}")
        if token and has_provider:
            local = f"ws://127.0.0.1:{os.environ.get('PORT') or 8000}/ws/device/"
            self.stdout.write(_TALK.format(local=local, token=token))

    def _step(self, name: str, run: Callable[[], str]) -> bool:
        """Run the step and write one line about it. Returns False if it failed."""
        try:
            self._write(name, run())
        except StepFailed as error:
            self._write_failure(name, str(error))
            return False
        return True

    def _write(self, name: str, line: str) -> None:
        self.stdout.write(f"{self.style.SUCCESS('ok  ')} {name}: {line}")

    def _write_failure(self, name: str, line: str) -> None:
        self._failed += 1
        self.stdout.write(f"{self.style.ERROR('todo')} {name}: {line}")

    def _administrator(self, name: str | None, email: str) -> str:
        existing = first_install.existing_administrator()
        if existing is not None:
            return f"{existing.get_username()} exists"
        name = name or self._ask("User name of the administrator", "admin")
        password = os.environ.get("DJANGO_SUPERUSER_PASSWORD", "")
        if password or self._asks:
            return first_install.create_administrator(name, email, password or self._ask_password(User(username=name)))
        password = secrets.token_urlsafe(12)
        line = first_install.create_administrator(name, email, password)
        return f"{line}, password {password} (not shown again)"

    def _ask_password(self, user: User) -> str:
        while True:
            password = getpass.getpass("Password: ")
            problem = first_install.password_problem(user, password)
            if not problem and password != getpass.getpass("Password again: "):
                problem = "The two passwords differ."
            if not problem:
                return password
            self.stdout.write(problem)

    def _first_patient(self, options: dict[str, Any]) -> str:
        """Create the first patient with a device and show its token. Returns the token, or "" if nothing was created.

        The token is shown at once, because it cannot be read again if a later step is interrupted.
        """
        if first_install.has_device():
            self._write("First device", "exists; its token can be renewed in the admin")
            return ""
        name = options["patient"] or self._ask("Name of the first patient (empty: none)", "")
        if not name:
            self._write_failure("First device", "none yet. Use --patient, or add a patient and a device in the admin.")
            return ""
        companion = options["companion"] or self._ask("Name of the AI companion", "Clara")
        language = options["language"] or self._ask_language()
        try:
            line, token = first_install.create_patient(FirstPatient(name, companion, language, options["device"]))
        except StepFailed as error:
            self._write_failure("First device", str(error))
            return ""
        self._write("First device", line)
        public = settings.PUBLIC_URL.replace("http", "ws", 1).rstrip("/")
        self.stdout.write(_DEVICE.format(token=token, socket=f"{public}/ws/device/"))
        return token

    def _ask_language(self) -> str:
        while True:
            language = self._ask("Language of the patient, such as en or de", languages.DEFAULT)
            problem = first_install.language_problem(language)
            if not problem:
                return language
            self.stdout.write(problem)

    def _ask(self, question: str, default: str) -> str:
        if not self._asks:
            return default
        hint = f" [{default}]" if default else ""
        return input(f"{question}{hint}: ").strip() or default
