"""Alert channels: mail and webhook. A channel sends one message or raises an exception."""

import hashlib
import hmac
import json
import smtplib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import aiohttp
from django.conf import settings
from django.core.mail import send_mail
from django.urls import reverse

from usage.alerts import messages, recipients
from usage.alerts.messages import AlertState
from usage.models import Incident
from voicecare.core import http_post

TIMESTAMP_HEADER, SIGNATURE_HEADER = "X-Voicecare-Timestamp", "X-Voicecare-Signature"

Channel = Callable[[Incident, AlertState], None]


class WebhookRefused(Exception):
    """The response of the webhook is not 2xx. The message has its status."""


def configured_channels() -> Mapping[str, Channel]:
    """Return the channels that the settings configure, by name: "mail" and "webhook".

    `Incident.notified_channels` stores these names, so they must not change.
    """
    configured: dict[str, Channel] = {}
    if settings.ADMIN_EMAILS:
        configured["mail"] = _mail
    if settings.ALERT_WEBHOOK_URL:
        configured["webhook"] = _webhook
    return configured


def channels_for(incident: Incident) -> Mapping[str, Channel]:
    """Return the channels for alerts about this incident, by name.

    An incident about a failing channel is not sent through that channel.
    """
    failing = incident.key if incident.kind == Incident.Kind.ALERTS else None
    return {name: channel for name, channel in configured_channels().items() if name != failing}


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return the HMAC-SHA256 of `timestamp`, a dot and `body`, with the key `secret`, as hexadecimal digits.

    The receiver of a webhook compares it with the signature in the header (docs/operation.md).
    """
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def test_sends() -> Mapping[str, Callable[[], None]]:
    """Return a function for each configured channel, by its name, that sends a test alert or raises an exception."""
    admin = settings.PUBLIC_URL.rstrip("/") + reverse("admin:index")
    sends = {
        "mail": partial(_send_mail, messages.TEST_SUBJECT, f"{messages.TEST_ALERT}\n\n{admin}\n"),
        "webhook": partial(_post, {"kind": "test", "state": "test", "text": messages.TEST_ALERT, "url": admin}),
    }
    return {name: sends[name] for name in configured_channels()}


def describe_failure(error: Exception) -> str:
    """Return why a channel has failed, as a sentence. The text of an exception can have the address, a secret."""
    if isinstance(error, WebhookRefused):
        return f"The receiver refused the message ({error})."
    if isinstance(error, TimeoutError):
        return "The receiver did not answer in time."
    if isinstance(error, smtplib.SMTPException):
        return f"The mail server refused the message ({type(error).__name__})."
    if isinstance(error, OSError | aiohttp.ClientError) and not isinstance(error, ValueError):
        return f"The receiver could not be reached ({type(error).__name__})."
    return f"The message could not be sent ({type(error).__name__})."


def _mail(incident: Incident, state: AlertState) -> None:
    body = f"{messages.body(incident, state)}\n\n{url_of(incident)}\n"
    _send_mail(messages.subject(incident, state), body, recipients.addresses_for(incident))


def _send_mail(subject: str, body: str, also_to: Sequence[str] = ()) -> None:
    send_mail(subject, body, None, [*settings.ADMIN_EMAILS, *also_to])


def _webhook(incident: Incident, state: AlertState) -> None:
    _post({"kind": incident.kind, "state": state, "text": messages.body(incident, state), "url": url_of(incident)})


def _post(payload: Mapping[str, str]) -> None:
    """Post the alert as JSON. Raises WebhookRefused for a response that is not 2xx, and what `http_post` raises."""
    body = json.dumps(payload).encode()
    headers = {"Content-Type": "application/json"}
    if settings.ALERT_WEBHOOK_SECRET:  # each retry is signed with its own time
        timestamp = str(int(time.time()))
        headers[TIMESTAMP_HEADER] = timestamp
        headers[SIGNATURE_HEADER] = f"sha256={signature(settings.ALERT_WEBHOOK_SECRET, timestamp, body)}"
    reply = http_post.post_once(settings.ALERT_WEBHOOK_URL, body, headers)
    if not reply.is_success:
        raise WebhookRefused(f"HTTP {reply.status}")


def url_of(incident: Incident) -> str:
    return settings.PUBLIC_URL.rstrip("/") + reverse("admin:usage_incident_change", args=[incident.pk])
