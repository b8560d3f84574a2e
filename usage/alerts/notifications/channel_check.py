"""Test alerts through every channel: the mail and the webhook of the settings, and the notification channels."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from django.db.models import QuerySet
from django.db.models.functions import Now

from usage.alerts import channels, messages
from usage.alerts.notifications import dispatch
from usage.alerts.notifications.sender import ChannelFailed, Sender
from usage.models import NotificationChannel


class Result(NamedTuple):
    """How the test of a channel has ended. `error` is empty, or a sentence without any part of an address."""

    name: str
    milliseconds: int
    error: str


def channel_names() -> list[str]:
    """Return the names of all channels: "mail" and "webhook" if they are configured, then the enabled ones."""
    return [*channels.configured_channels(), *_enabled().values_list("name", flat=True)]


def send_test_alerts() -> list[Result]:
    """Send a test alert through all channels at the same time. Takes as long as the slowest, at most half a minute.

    A notification channel that works again has no incident any longer.
    """
    rows = {row.name: row for row in _enabled()}
    sends = [*channels.test_sends().items(), *((name, _test_send(row)) for name, row in rows.items())]
    with ThreadPoolExecutor(max(len(sends), 1)) as pool:
        results = list(pool.map(lambda named: _measure(*named), sends))
    for result in results[len(sends) - len(rows) :]:
        _record(rows[result.name], result.error)
    return results


def _enabled() -> QuerySet[NotificationChannel]:
    return NotificationChannel.objects.filter(enabled=True)


def _test_send(channel: NotificationChannel) -> Callable[[], None]:
    def send() -> None:
        with Sender(channel.url) as sender:
            sender.send(messages.TEST_SUBJECT, messages.TEST_ALERT, "info")

    return send


def _measure(name: str, send: Callable[[], None]) -> Result:
    began = time.monotonic()
    try:
        send()
    except ChannelFailed as failure:
        error = str(failure)
    except Exception as failure:  # a mail server or a library can raise anything, and the other results are shown
        error = channels.describe_failure(failure)
    else:
        error = ""
    return Result(name, round((time.monotonic() - began) * 1000), error)


def _record(channel: NotificationChannel, error: str) -> None:
    row = NotificationChannel.objects.filter(pk=channel.pk)
    if error:
        row.update(last_failed_at=Now(), last_error=error)
    else:
        row.update(last_sent_at=Now(), last_error="", failures=0)
        dispatch.resolve_incident_of(channel.pk)
