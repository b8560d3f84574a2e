"""The versions and settings of this process, for the page System health of the admin."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from django.db import connection
from yarl import URL

from voicecare.settings import env

PACKAGES = ("django", "channels", "daphne", "celery", "djangorestframework", "redis", "boto3", "av")
SECRET_NAMES = ("KEY", "SECRET", "TOKEN", "PASSWORD")  # settings whose names end with one of these words


def versions() -> list[tuple[str, str]]:
    """Returns name and version of Python, the database, and the most important packages."""
    rows = [("Python", platform.python_version()), database_version()]
    return [*rows, *((package, version(package)) for package in PACKAGES)]


def database_version() -> tuple[str, str]:
    """Returns name and version of the database. Raises DatabaseError."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version" if connection.vendor == "postgresql" else "SELECT sqlite_version()")
        [number] = cursor.fetchone()
    return connection.display_name, str(number)


def masked_settings() -> list[tuple[str, str]]:
    """Returns the settings that come from environment variables, by name, without secrets.

    A secret is only "set" or "not set". Addresses have no path, user, password or query, because these can be secrets.
    """
    return [(name, _masked(name, value)) for name, value in sorted(env.dump().items())]


def _masked(name: str, value: Any) -> str:  # noqa: ANN401 - each setting has its own type
    if value is None or value in ("", [], {}):
        return "not set"
    if name.endswith(SECRET_NAMES):
        return "set"
    if isinstance(value, Mapping):  # the database or the mail server, as Django's settings
        kind = str(value.get("ENGINE", "")).rpartition(".")[2] or str(value.get("EMAIL_BACKEND", "")).split(".")[-2]
        return f"{kind} {value.get('HOST') or value.get('EMAIL_HOST') or ''}".strip()
    if name.endswith("URL"):
        return str(URL(value).origin()) if URL(value).host else "set"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
