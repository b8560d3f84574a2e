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
from usage.models import Incident

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 3.0, 5.0
TIMESTAMP_HEADER, SIGNATURE_HEADER = "X-Voicecare-Timestamp", "X-Voicecare-Signature"

Channel = Callable[[Incident, str], None]


def configured_channels() -> Mapping[str, Channel]:
    """Return the channels that the settings configure. Their names are those stored in `notified_channels`."""
    configured: dict[str, Channel] = {}
    if settings.ADMIN_EMAILS:
        configured["mail"] = _mail
    if settings.ALERT_WEBHOOK_URL:
        configured["webhook"] = _webhook
    return configured


def channels_for(incident: Incident) -> Mapping[str, Channel]:
    """Return the channels for this incident. A failing-channel incident is not sent through the failing channel."""
    failing = incident.key if incident.kind == Incident.Kind.ALERTS else None
    return {name: channel for name, channel in configured_channels().items() if name != failing}


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return the HMAC-SHA256 of timestamp, dot and body as hexadecimal digits. See docs/operation.md."""
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _mail(incident: Incident, state: str) -> None:
    body = f"{messages.body(incident, state)}\n\n{_url(incident)}\n"
    send_mail(messages.subject(incident, state), body, None, settings.ADMIN_EMAILS)


def _webhook(incident: Incident, state: str) -> None:
    """Redirects and proxies of the environment are not used, so the message goes to the configured URL only."""
    payload = {"kind": incident.kind, "state": state, "text": messages.body(incident, state), "url": _url(incident)}
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
