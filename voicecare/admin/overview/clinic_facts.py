"""The figures of clinics for their list and pages."""

from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import Q, Sum

from usage.budgets import BUDGETED_KINDS, current_month
from usage.models import DailyUsage
from usage.reports.queries import today
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Clinic, Patient


@dataclass(slots=True)
class ClinicFacts:
    """The number of patients, and the characters of this month. `budgeted` and `budgeted_today` count for the budgets.

    Erased patients, and those who are to be erased, are not among the patients, but their characters are counted.
    Without permission for the ledger, the characters are 0.
    """

    patients: int = 0
    characters: int = 0
    budgeted: int = 0
    budgeted_today: int = 0


def read_facts(clinics: Collection[Clinic], permissions: AdminPermissions) -> dict[Clinic, ClinicFacts]:
    """Read the facts of these clinics with two queries. The ledger does not know clinics, so they are added here."""
    found = {clinic: ClinicFacts() for clinic in clinics}
    by_id = {clinic.pk: facts for clinic, facts in found.items()}
    patients = Patient.objects.filter(clinic__in=list(by_id)).order_by()
    facts_of = {}
    for patient_id, clinic_id, erases_at in patients.values_list("pk", "clinic_id", "erases_at"):
        facts_of[patient_id] = by_id[clinic_id]
        by_id[clinic_id].patients += erases_at is None
    if not permissions.can_view(DailyUsage):
        return found
    usage = DailyUsage.objects.filter(patient__in=patients.values("pk"), day__gte=current_month()).order_by()
    is_budgeted = Q(kind__in=BUDGETED_KINDS)
    sums = usage.values_list("patient").annotate(
        total=Sum("characters"),
        budgeted=Sum("characters", filter=is_budgeted, default=0),
        budgeted_today=Sum("characters", filter=is_budgeted & Q(day=today()), default=0),
    )
    for patient_id, characters, budgeted, budgeted_today in sums:
        if facts := facts_of.get(patient_id):  # else the patient has just moved
            facts.characters += characters
            facts.budgeted += budgeted
            facts.budgeted_today += budgeted_today
    return found
