"""What the list shows of each patient that is not in the patient's row. Read for the rows of one page only."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from django.db.models import Max, OuterRef, Prefetch, Q, Subquery, Sum, prefetch_related_objects
from django.utils import timezone

from usage.budgets import BUDGETED_KINDS, current_month
from usage.models import DailyUsage, Incident
from usage.reports import repeated_texts
from usage.reports.repeated_texts import Kind
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Device, Patient

# Only used if the list is sorted by it.
LAST_SEEN = Subquery(
    Device.objects.bedside()
    .filter(patient=OuterRef("pk"))
    .order_by()
    .values("patient")
    .annotate(last_seen=Max("last_seen"))
    .values("last_seen")
)


@dataclass(slots=True)
class PatientFacts:
    """The devices and the team of a patient, the characters of this month, and the number of open incidents.

    `budgeted` are the characters that count towards the monthly budget, `from_cache` those that the phrase cache has
    saved. `price` is the average price of a character, None without prices. Without permission for the ledger or for
    incidents, the numbers are 0.
    """

    devices: Sequence[Device]
    team: Sequence[str]
    characters: int = 0
    budgeted: int = 0
    from_cache: int = 0
    price: Decimal | None = None
    incidents: int = 0
    now: datetime = field(default_factory=timezone.now)

    @property
    def is_online(self) -> bool:
        return any(device.online_until is not None and device.online_until > self.now for device in self.devices)

    @property
    def last_seen(self) -> datetime | None:
        """When a device of the patient last connected. The time now if one is connected."""
        if self.is_online:
            return self.now
        return max((device.last_seen for device in self.devices if device.last_seen is not None), default=None)


def read_facts(patients: Sequence[Patient], permissions: AdminPermissions) -> dict[Patient, PatientFacts]:
    """Read the facts of these patients with at most six queries."""
    prefetch_related_objects(patients, Prefetch("devices", Device.objects.bedside()), "team")
    found = {
        patient: PatientFacts(
            [device for device in patient.devices.all() if device.revoked_at is None],
            [user.get_username() for user in patient.team.all()],
        )
        for patient in patients
    }
    by_id = {patient.pk: facts for patient, facts in found.items()}
    if permissions.can_view(DailyUsage):
        of_month = DailyUsage.objects.filter(patient__in=list(by_id), day__gte=current_month()).order_by()
        budgeted = Sum("characters", filter=Q(kind__in=BUDGETED_KINDS), default=0)
        saved = Sum("saved_characters", filter=Q(kind=Kind.CACHE), default=0)
        rows = list(of_month.values("patient").annotate(total=Sum("characters"), budgeted=budgeted, saved=saved))
        price = repeated_texts.average_price() if any(row["saved"] for row in rows) else None
        for row in rows:
            facts = by_id[row["patient"]]
            facts.characters, facts.budgeted = row["total"], row["budgeted"]
            facts.from_cache, facts.price = row["saved"], price
    if permissions.can_view(Incident):
        _count_incidents(found)
    return found


def incident_keys(patient: Patient) -> list[str]:
    """The keys of incidents that concern this patient or the patient's voice."""
    return [str(key) for key in (patient.pk, patient.voice_id) if key is not None]


def _count_incidents(found: dict[Patient, PatientFacts]) -> None:
    keys = {key for patient in found for key in incident_keys(patient)}
    opened = Counter(Incident.objects.filter(resolved_at=None, key__in=keys).values_list("key", flat=True))
    for patient, facts in found.items():
        facts.incidents = sum(opened[key] for key in incident_keys(patient))
