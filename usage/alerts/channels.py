"""The ways in which administrators are told of an incident: mail and webhook. Each sends one message or raises."""

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

CONNECT_S, READ_S = 3.0, 5.0
TIMESTAMP, SIGNATURE = "X-Voicecare-Timestamp", "X-Voicecare-Signature"

Channel = Callable[[Incident, str], None]


def configured_channels() -> Mapping[str, Channel]:
    """Those that the settings name, by the names under which `notified_channels` keeps them."""
    ways: dict[str, Channel] = {}
    if settings.ADMIN_EMAILS:
        ways["mail"] = _mail
    if settings.ALERT_WEBHOOK_URL:
        ways["webhook"] = _webhook
    return ways


def channels_for(incident: Incident) -> Mapping[str, Channel]:
    """Those for this incident: that a way fails is told by the others alone."""
    failing = incident.key if incident.kind == Incident.Kind.ALERTS else None
    return {name: way for name, way in configured_channels().items() if name != failing}


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over the timestamp, a dot and the body, in hexadecimal digits (docs/operation.md)."""
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _mail(incident: Incident, state: str) -> None:
    body = f"{messages.body(incident, state)}\n\n{_url(incident)}\n"
    send_mail(messages.subject(incident, state), body, None, settings.ADMIN_EMAILS)


def _webhook(incident: Incident, state: str) -> None:
    """Without redirects or the environment's proxies: the message goes where the administrators said, or nowhere."""
    said = {"kind": incident.kind, "state": state, "text": messages.body(incident, state), "url": _url(incident)}
    body = json.dumps(said).encode()
    with requests.Session() as session:
        session.trust_env = False
        post = partial(session.post, data=body, headers=_headers(body), timeout=(CONNECT_S, READ_S))
        with post(settings.ALERT_WEBHOOK_URL, allow_redirects=False, stream=True) as reply:
            if not 200 <= reply.status_code < 300:
                raise requests.HTTPError(f"HTTP {reply.status_code}")


def _headers(body: bytes) -> dict[str, str]:
    """Signed when it is sent, not when it was to be: a repeat has a time of its own."""
    headers = {"Content-Type": "application/json"}
    if settings.ALERT_WEBHOOK_SECRET:
        timestamp = str(int(time.time()))
        headers[TIMESTAMP] = timestamp
        headers[SIGNATURE] = f"sha256={signature(settings.ALERT_WEBHOOK_SECRET, timestamp, body)}"
    return headers


def _url(incident: Incident) -> str:
    return settings.PUBLIC_URL.rstrip("/") + reverse("admin:usage_incident_change", args=[incident.pk])
