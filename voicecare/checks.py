"""System checks for production. `python manage.py check --deploy` runs them."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import connection

from voicecare.accounts import oidc


@register
def check_oidc(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ANN401
    return [Error(problem, id="voicecare.E001") for problem in oidc.configuration_problems()]


@register(deploy=True)
def check_production_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ANN401
    found: list[CheckMessage] = []
    if settings.USE_SANDBOX:
        found.append(
            Warning(
                "Patients would hear the built-in sandbox provider.",
                hint="Set ELEVENLABS_API_KEY or ELEVENLABS_API_KEY_FILE.",
                id="voicecare.W001",
            )
        )
    if connection.vendor == "sqlite":
        found.append(
            Warning(
                "The database is one SQLite file: it works on one machine only, with one writer at a time.",
                hint="Set DATABASE_URL to a PostgreSQL database.",
                id="voicecare.W002",
            )
        )
    return found
