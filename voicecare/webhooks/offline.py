"""Finds the devices that have been offline for DEVICE_OFFLINE_AFTER_S, and emits one event for each outage.

`Device.online_until` is the time when the device was last known to be connected. `Device.offline_reported_for` is the
value of it that was reported, so each outage is reported once, by one process.
"""

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from voicecare.patients.models import Device
from voicecare.webhooks import events
from voicecare.webhooks.events import Subject
from voicecare.webhooks.models import EventType

INTERVAL_S = 15.0
MAX_CHECK_GAP_S = 45.0
NEWS_FOR = timedelta(days=1)
"""Older outages are not reported, for example those from before the first endpoint was created."""


class OfflineMonitor:
    """Each web process has one. An outage counts only while a web process runs and reaches the database.

    So a device is not reported because of an upgrade, or of an outage of the server itself.
    """

    def __init__(self, now: float) -> None:
        self._started = self._checked = now

    def check(self, now: float) -> int:
        """Emit the events that are due, and return how many outages there are. One query if there are none.

        `now` is the clock of this process in seconds. If it jumps, the monitor starts again. Raises DatabaseError.
        """
        if abs(now - self._checked) > MAX_CHECK_GAP_S:
            self._started = now
        self._checked = now
        return report_outages() if now - self._started >= settings.DEVICE_OFFLINE_AFTER_S else 0


def report_outages() -> int:
    """Emit an event for each device that has been offline for DEVICE_OFFLINE_AFTER_S. Return how many.

    Revoked devices, those of archived patients, and the device console are left out.
    """
    long_ago = Now() - timedelta(seconds=settings.DEVICE_OFFLINE_AFTER_S)
    devices = Device.objects.connectable().bedside()
    outages = devices.filter(online_until__lte=long_ago, online_until__gt=Now() - NEWS_FOR)
    unreported = Q(offline_reported_for=None) | ~Q(offline_reported_for=F("online_until"))
    reported = 0
    for device in outages.filter(unreported):
        with transaction.atomic():
            # Without the joins: PostgreSQL checks the condition again after another process has changed the row.
            row = Device.objects.filter(unreported, pk=device.pk, online_until=device.online_until)
            if row.update(offline_reported_for=device.online_until):
                data = {"id": device.pk, "offline_since": device.online_until}
                events.emit(EventType.DEVICE_OFFLINE, [Subject(device.pk, device.patient_id, data)])
                reported += 1
    return reported
