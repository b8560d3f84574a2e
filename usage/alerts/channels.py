"""Alert channels: mail and webhook. A channel sends one message or raises an exception."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from functools import partial

import requests
from django.conf import settings
from django.core.mail import send_mail
from django.urls import reverse

from usage.alerts import messages
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


def send_test_alert() -> dict[str, str]:
    """Send a test alert through each configured channel. Returns, by name of the channel, why it failed, or ""."""
    admin = settings.PUBLIC_URL.rstrip("/") + reverse("admin:index")
    sends = {
        "mail": partial(_send_mail, "voicecare: test alert", f"{messages.TEST_ALERT}\n\n{admin}\n"),
        "webhook": partial(_post, {"kind": "test", "state": "test", "text": messages.TEST_ALERT, "url": admin}),
    }
    results = {}
    for name in configured_channels():
        try:
            sends[name]()
        except Exception as error:  # a mail server or a library can raise anything, and the other channel is tried too
            results[name] = f"{type(error).__name__}: {error}"
        else:
            results[name] = ""
    return results


def _mail(incident: Incident, state: AlertState) -> None:
    _send_mail(messages.subject(incident, state), f"{messages.body(incident, state)}\n\n{_url(incident)}\n")


def _send_mail(subject: str, body: str) -> None:
    send_mail(subject, body, None, settings.ADMIN_EMAILS)


def _webhook(incident: Incident, state: AlertState) -> None:
    _post({"kind": incident.kind, "state": state, "text": messages.body(incident, state), "url": _url(incident)})


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


def _url(incident: Incident) -> str:
    return settings.PUBLIC_URL.rstrip("/") + reverse("admin:usage_incident_change", args=[incident.pk])
