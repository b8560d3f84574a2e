"""All checks of `manage.py doctor`, in the order in which an operator solves problems."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.checks import ERROR, run_checks
from django.core.mail import get_connection

from usage.alerts.notifications import channel_check
from voicecare.health import database, parts, provider, stores
from voicecare.health.parts import Part
from voicecare.health.public_url import check_public_url
from voicecare.providers.espeak.client import EspeakVoice, OfflineSynthesizer, SynthesizerUnavailable

ASKED_ANEW = {"provider_key", "default_voice"}  # `provider` asks, and does not believe what the database says


@dataclass(frozen=True, slots=True)
class Extent:
    """What is checked beside what costs nothing and disturbs nobody.

    `speaks`: a word is spoken, which is billed. `alerts`: a test alert is sent. `url`: the address of the server for
    its clients, or empty.
    """

    speaks: bool = True
    alerts: bool = False
    url: str = ""


def examine(extent: Extent) -> Iterator[Part]:
    """Yields the result of each check as soon as it is known. Never raises."""
    answers, broker = database.check_database(), async_to_sync(parts.check_broker)()
    yield answers
    is_migrated = False
    if answers.works:
        for part in _guarded("Migrations", database.check_migrations):
            is_migrated = part.works
            yield part
        yield from _guarded("Clock and database", database.check_clock)
    yield broker
    yield from _guarded("Phrase store", stores.check_phrase_store)
    yield from _guarded("Recordings", stores.check_recordings)
    yield from _guarded("Disk space", stores.check_disk)
    yield from _guarded("Offline voice", _check_offline_voice)
    if is_migrated:
        yield from _guarded("Provider", provider.check_account)
        if extent.speaks:
            yield from _guarded("Speech", provider.check_speech)
        yield from _guarded("Parts", _parts_of_rows)
    yield from _guarded("Mail server", _check_mail)
    if extent.alerts:
        yield from _guarded("Test alert", _send_test_alert)
    yield from _guarded("Settings", _check_settings)
    if extent.url:
        yield from _guarded("Public URL", lambda: iter(asyncio.run(check_public_url(extent.url))))


def _guarded(title: str, check: Callable[[], Iterator[Part] | Part | None]) -> Iterator[Part]:
    """Yields the parts of a check. Whatever it raises becomes one line, because the other checks must go on."""
    try:
        found = check()
        if isinstance(found, Part):
            yield found
        elif found is not None:
            yield from found
    except Exception as error:  # a check can fail in any way, and the others are shown
        name = title.lower().replace(" ", "_")
        state = f"the check failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        yield Part(name, title, False, state, "Solve the problems above first, and run the doctor again.")


def _parts_of_rows() -> Iterator[Part]:
    """What `/readyz` and the admin show, too."""
    for part in async_to_sync(parts.check_parts)():
        if part.name not in {"broker", *ASKED_ANEW}:
            yield part


def _check_offline_voice() -> Part:
    async def speak() -> int:
        synthesizer = OfflineSynthesizer()
        try:
            await synthesizer.start()
            return sum([len(audio) async for audio in synthesizer.speak("One.", EspeakVoice(), "mp3_44100_128")])
        finally:
            await synthesizer.close()

    try:
        works = asyncio.run(speak()) > 0
    except SynthesizerUnavailable as error:
        return parts.offline_voice(works=False, problem=str(error))
    return parts.offline_voice(works=works)


def _check_mail() -> Part | None:
    """Connects to the mail server and logs in there, without sending anything. None if no mail is ever sent."""
    if not (settings.CAN_RESET_PASSWORDS or settings.ADMIN_EMAILS or settings.STATEMENT_EMAILS):
        return None
    title, kind = "Mail server", settings.EMAIL_BACKEND.split(".")[-2]
    if kind != "smtp":
        return Part("mail_server", title, True, f"mails go to {kind}", "Set EMAIL_URL to a mail server.", warns=True)
    server = f"{settings.EMAIL_HOST}:{settings.EMAIL_PORT}"
    try:
        with get_connection():
            return Part("mail_server", title, True, f"{server} answers")
    except Exception as error:  # smtplib, ssl and sockets raise exceptions of many types
        state = f"{server} fails ({type(error).__name__})"
        return Part("mail_server", title, False, state, "Check EMAIL_URL. No mail with an alert or a link arrives.")


def _send_test_alert() -> Iterator[Part]:
    for number, result in enumerate(channel_check.send_test_alerts(), 1):
        state = f"failed: {result.error}" if result.error else "sent; has it arrived?"
        title = f"Test alert by {result.name}"
        yield Part(f"test_alert_{number}", title, not result.error, state, "Check the settings of this channel.")


def _check_settings() -> Iterator[Part]:
    """Runs the system checks, with those for production."""
    messages = [message for message in run_checks(include_deployment_checks=True) if not message.is_silenced()]
    for message in messages:
        name = f"settings_{str(message.id).replace('.', '_')}"
        works = message.level < ERROR
        yield Part(name, "Settings", works, str(message.msg), str(message.hint or ""), warns=True)
    if not messages:
        yield Part("settings", "Settings", True, "none is unsafe")
