"""System checks for production: what the settings say, without asking any other server.

`python manage.py check --deploy` and `python manage.py doctor` run them.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import connection
from django.http.request import validate_host

from usage.alerts import channels
from voicecare.accounts import oidc

LOCAL_HOSTS = {"", "localhost", "127.0.0.1", "::1"}


@register
def check_oidc(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ANN401
    return [Error(problem, id="voicecare.E001") for problem in oidc.configuration_problems()]


@register(deploy=True)
def check_production_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ANN401
    return [*_storage(), *_provider(), *_public_address(), *_alerts(), *_metrics()]


def _storage() -> Iterator[CheckMessage]:
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        yield Warning(
            "The database is one SQLite file: it works on one machine only, with one writer at a time.",
            hint="Set DATABASE_URL to a PostgreSQL database.",
            id="voicecare.W002",
        )
    elif not _is_local(database["HOST"]) and not (settings.AWS_STORAGE_BUCKET_NAME and settings.PHRASE_STORE != "file"):
        yield Warning(
            "Cached phrases or recordings are files on this machine, but the database serves other machines, too. "
            "With web or worker on several machines, one does not find the files of another.",
            hint="With several machines, set AWS_STORAGE_BUCKET_NAME and PHRASE_STORE=s3 (or redis).",
            id="voicecare.W005",
        )
    if not settings.REDIS_URL:
        yield Warning(
            "Background work is passed on through a folder of this machine, and each web process counts the provider's "
            "concurrent requests alone.",
            hint="Set REDIS_URL.",
            id="voicecare.W008",
        )


def _provider() -> Iterator[CheckMessage]:
    if settings.USE_SANDBOX:
        yield Warning(
            "Patients would hear the built-in sandbox provider.",
            hint="Set ELEVENLABS_API_KEY or ELEVENLABS_API_KEY_FILE.",
            id="voicecare.W001",
        )
    if _is_plain_http(settings.ELEVENLABS_BASE_URL):
        yield Warning(
            "The API key and all texts travel to the provider without encryption.",
            hint="Let ELEVENLABS_BASE_URL begin with https:.",
            id="voicecare.W009",
        )


def _public_address() -> Iterator[CheckMessage]:
    address = urlsplit(settings.PUBLIC_URL)
    if _is_local(address.hostname or ""):
        yield Warning(
            f"PUBLIC_URL is {settings.PUBLIC_URL}: links in alerts and mails lead nowhere.",
            hint="Set PUBLIC_URL to the address at which people and devices find this server, with https:.",
            id="voicecare.W004",
        )
    elif address.scheme != "https":
        yield Warning(
            "PUBLIC_URL has no TLS: passwords, tokens of devices, texts and cookies can be read on the way.",
            hint="Put a proxy that ends TLS in front of web, and let PUBLIC_URL begin with https:.",
            id="voicecare.W004",
        )
    if "*" in settings.ALLOWED_HOSTS:
        yield Warning(
            "ALLOWED_HOSTS is *: pages of any origin may open device sockets.",
            hint="List the host names of this server.",
            id="voicecare.W010",
        )
    elif not validate_host(address.hostname or "", settings.ALLOWED_HOSTS):
        yield Warning(
            "The host of PUBLIC_URL is not in ALLOWED_HOSTS: the server answers 400 at its own public address.",
            hint=f"Add {address.hostname} to ALLOWED_HOSTS.",
            id="voicecare.W011",
        )


def _alerts() -> Iterator[CheckMessage]:
    if not channels.configured_channels():
        yield Warning(
            "Neither a mail address nor a webhook gets alerts, so nobody is alerted while the database is away.",
            hint="Set ADMIN_EMAILS (with EMAIL_URL) or ALERT_WEBHOOK_URL, also beside channels in the admin.",
            id="voicecare.W003",
        )
    if (settings.ADMIN_EMAILS or settings.STATEMENT_EMAILS) and not settings.CAN_RESET_PASSWORDS:
        yield Warning(
            "No mail server is chosen: mails to ADMIN_EMAILS and STATEMENT_EMAILS are printed, or go to this machine.",
            hint="Set EMAIL_URL, such as submission://user:password@mail.example.org.",
            id="voicecare.W006",
        )
    if settings.ALERT_WEBHOOK_URL and not settings.ALERT_WEBHOOK_SECRET:
        yield Warning(
            "The alerts of the webhook are not signed: their receiver cannot tell them from forged ones.",
            hint="Set ALERT_WEBHOOK_SECRET here and at the receiver.",
            id="voicecare.W012",
        )


def _metrics() -> Iterator[CheckMessage]:
    if not settings.METRICS_TOKEN:
        yield Warning(
            "Prometheus can read /metrics on this machine only, and not through a proxy.",
            hint="Set METRICS_TOKEN to a long random text, and let Prometheus send it as a bearer token.",
            id="voicecare.W007",
        )


def _is_local(host: str) -> bool:
    """Whether this is the name of this machine. A path is the folder of a socket of PostgreSQL."""
    return host in LOCAL_HOSTS or host.startswith("/")


def _is_plain_http(url: str) -> bool:
    return urlsplit(url).scheme == "http" and not _is_local(urlsplit(url).hostname or "")
