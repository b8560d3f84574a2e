"""Alert channels: mail and webhook. A channel sends one message or raises an exception."""

import hashlib
import hmac
import json
import smtplib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import requests
from django.conf import settings
from django.core.mail import send_mail
from django.urls import reverse

from usage.alerts import messages, recipients
from usage.alerts.messages import AlertState
from usage.models import Incident

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 3.0, 5.0
TIMESTAMP_HEADER, SIGNATURE_HEADER = "X-Voicecare-Timestamp", "X-Voicecare-Signature"

Channel = Callable[[Incident, AlertState], None]


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
    if isinstance(error, requests.HTTPError):
        return f"The receiver refused the message ({error})."
    if isinstance(error, TimeoutError | requests.Timeout):
        return "The receiver did not answer in time."
    if isinstance(error, smtplib.SMTPException):
        return f"The mail server refused the message ({type(error).__name__})."
    if isinstance(error, OSError) and not isinstance(error, ValueError):
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
    """Post the alert as JSON. Raises an exception of `requests` on failure, also for a response without 2xx.

    Redirects are not followed and proxies of the environment are not used, so the message goes to the configured URL
    only.
    """
    body = json.dumps(payload).encode()
    headers = {"Content-Type": "application/json"}
    if settings.ALERT_WEBHOOK_SECRET:  # each retry is signed with its own time
        timestamp = str(int(time.time()))
        headers[TIMESTAMP_HEADER] = timestamp
        headers[SIGNATURE_HEADER] = f"sha256={signature(settings.ALERT_WEBHOOK_SECRET, timestamp, body)}"
    with requests.Session() as session:
        session.trust_env = False
        post = partial(session.post, data=body, headers=headers, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S))
        with post(settings.ALERT_WEBHOOK_URL, allow_redirects=False, stream=True) as response:
            if not 200 <= response.status_code < 300:
                raise requests.HTTPError(f"HTTP {response.status_code}")


def url_of(incident: Incident) -> str:
    return settings.PUBLIC_URL.rstrip("/") + reverse("admin:usage_incident_change", args=[incident.pk])
