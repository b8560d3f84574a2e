"""The pages of clinics: their patients, members, budgets and addresses for alerts."""

from collections.abc import Callable, Collection
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.translation import ngettext

from usage.models import DailyUsage
from voicecare.admin.guarded_deletion import DeletionRefused, GuardedDeletionAdmin
from voicecare.admin.lists import budget_share
from voicecare.admin.overview.clinic_facts import ClinicFacts, read_facts
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.care_teams import visible_clinics
from voicecare.patients.models import Clinic, Patient


class ClinicHasPatients(DeletionRefused):
    def __init__(self, clinic: Clinic, patients: int) -> None:
        found = ngettext("%d patient belongs", "%d patients belong", patients) % patients
        super().__init__(
            f"{clinic} was not deleted, because {found} to it. Choose another clinic or none on the pages of these "
            "patients first: the list of patients has a filter by clinic."
        )


class ClinicChangeList(ChangeList):
    """Reads the facts of all clinics of the page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        clinics = cast(list[Clinic], list(self.result_list))
        _add_facts(clinics, request)
        self.result_list = cast(Any, clinics)


@admin.register(Clinic)
class ClinicAdmin(GuardedDeletionAdmin):
    search_fields = ("name",)
    autocomplete_fields = ("members",)
    readonly_fields = ("patients", "characters_this_month", "monthly_budget_used", "daily_budget_used")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Clinic]:
        return super().get_queryset(request) & visible_clinics(request.user)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ANN401 - Django's signature
        return ClinicChangeList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Clinic | None:
        clinic = super().get_object(request, object_id, from_field)
        if clinic is not None:
            _add_facts([clinic], request)
        return clinic

    def get_list_display(self, request: HttpRequest) -> list[str | Callable[[Any], str | bool]]:
        return ["name", "patients", *_usage_columns(request)]

    def get_fieldsets(  # type: ignore[override]  # the stubs' own type for it is private
        self, request: HttpRequest, obj: Clinic | None = None
    ) -> list[tuple[str | None, dict[str, Any]]]:
        own: list[tuple[str | None, dict[str, Any]]] = [
            (None, {"fields": ("name", "members")}),
            ("Budgets", {"fields": ("monthly_character_budget", "daily_character_budget")}),
            ("Alerts", {"fields": ("alert_emails",)}),
        ]
        return [("Now", {"fields": ("patients", *_usage_columns(request))}), *own] if obj else own

    @admin.display(description="Patients")
    def patients(self, clinic: Clinic) -> str:
        """How many patients the clinic has, with a link to their list."""
        url = reverse("admin:patients_patient_changelist", query={"clinic": str(clinic.pk)})
        return format_html('<a href="{}">{}</a>', url, _facts(clinic).patients)

    @admin.display(description="Characters this month")
    def characters_this_month(self, clinic: Clinic) -> str:
        return number_format(_facts(clinic).characters, force_grouping=True)

    @admin.display(description="Monthly budget used")
    def monthly_budget_used(self, clinic: Clinic) -> str:
        return budget_share(_facts(clinic).budgeted, clinic.monthly_character_budget)

    @admin.display(description="Daily budget used")
    def daily_budget_used(self, clinic: Clinic) -> str:
        return budget_share(_facts(clinic).budgeted_today, clinic.daily_character_budget)

    # Deletion

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:  # noqa: ANN401 - Django's signature
        """Lists the clinics only. Django would list their patients as a reason why not. `check_deletion` refuses."""
        return [str(clinic) for clinic in objs], {self.opts.verbose_name_plural: len(objs)}, set(), []

    def check_deletion(self, rows: QuerySet[Clinic]) -> None:
        """Refuses while the clinic has patients. Erased ones, whom nobody can move, are taken out of the clinic."""
        counted = rows.annotate(number=Count("patients", filter=Q(patients__erased_at=None)))
        for clinic in counted:
            if clinic.number:
                raise ClinicHasPatients(clinic, clinic.number)
        Patient.objects.filter(clinic__in=rows).exclude(erased_at=None).update(clinic=None)


def _usage_columns(request: HttpRequest) -> list[str]:
    if not AdminPermissions(request.user).can_view(DailyUsage):
        return []
    return ["characters_this_month", "monthly_budget_used", "daily_budget_used"]


def _add_facts(clinics: Collection[Clinic], request: HttpRequest) -> None:
    for clinic, facts in read_facts(clinics, AdminPermissions(request.user)).items():
        cast(Any, clinic).facts = facts


def _facts(clinic: Clinic) -> ClinicFacts:
    return cast(ClinicFacts, cast(Any, clinic).facts)
