"""Monitors where the provider handles our requests, and opens or resolves the incident about it.

Each attempt in the ledger has the region that the response named. The attempts of the last minutes are read, so speech
itself compares nothing.
"""

from datetime import timedelta

from django.conf import settings
from django.db.models import Count
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.models import UsageEvent

WINDOW_MINUTES = 10


def check() -> None:
    """Open the incident if a recent request was handled outside of ELEVENLABS_REGIONS. Resolve it if none was.

    One query. Without recent requests nothing changes. Without the setting nothing is promised.
    """
    if not settings.ELEVENLABS_REGIONS:
        incidents.resolve_incident(incidents.Kind.REGION)
        return
    recent = UsageEvent.objects.filter(started_at__gt=Now() - timedelta(minutes=WINDOW_MINUTES)).exclude(region="")
    requests_by_region = dict(recent.order_by("region").values_list("region").annotate(requests=Count("pk")))
    elsewhere = sorted(requests_by_region.keys() - set(settings.ELEVENLABS_REGIONS))
    if elsewhere:
        counts = ", ".join(f"{requests_by_region[region]} in {region}" for region in elsewhere)
        promised = " or ".join(settings.ELEVENLABS_REGIONS)
        detail = f"Promised: {promised}. Requests of {WINDOW_MINUTES} minutes that were handled elsewhere: {counts}."
        incidents.open_incident(incidents.Kind.REGION, detail=detail)
    elif requests_by_region:
        incidents.resolve_incident(incidents.Kind.REGION)
