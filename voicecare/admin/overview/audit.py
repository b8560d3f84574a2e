"""The page of the audit trail: a list that is searched by person, patient and time, and its export."""

from typing import Any, cast

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseBadRequest
from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.html import format_html, format_html_join

from voicecare.admin.lists import EMPTY, link_to, timestamp
from voicecare.admin.overview.audit_export import csv_response
from voicecare.admin.overview.audit_filters import ActionFilter, DateRangeFilter
from voicecare.admin.periods import PeriodAdmin, PeriodFilter
from voicecare.admin.readonly import ReadOnlyAdmin
from voicecare.admin.titles import TitledAdmin
from voicecare.audit.models import Action, AuditEntry
from voicecare.audit.recording import record
from voicecare.patients import care_teams
from voicecare.patients.models import Patient
from voicecare.patients.models.patient import PatientQuerySet

SHORT_ID = 8  # characters of an id in the list


class AuditChangeList(ChangeList):
    """Reads the patients of all entries of the page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        entries: list[Any] = list(self.result_list)
        patients = cast(AuditEntryAdmin, self.model_admin).visible_patients(request)
        found = patients.in_bulk({entry.patient_id for entry in entries} - {None})
        for entry in entries:
            entry.patient = found.get(entry.patient_id)
        self.result_list = cast(Any, entries)


@admin.register(AuditEntry)
class AuditEntryAdmin(TitledAdmin, PeriodAdmin, ReadOnlyAdmin):
    period_field = "at"
    default_days = 30
    id_fields = ("patient_id", "object_id")
    id_parameters = ("patient_id", "object_id", "user_id", *DateRangeFilter.parameters)
    search_help_text = "The name of a person or of a patient, or the id of a patient or of another row."
    ordering = ("-at", "-pk")
    list_per_page = 50
    list_display = ("time", "person", "action_in_words", "object_link", "patient_link", "changed", "origin")
    list_filter = (PeriodFilter, DateRangeFilter, ActionFilter, "source")
    search_fields = ("user_name",)  # and names of patients, see `get_search_results`
    fieldsets = (
        (None, {"fields": ("time", "person", "action_in_words", "object_link", "patient_link", "changed_values")}),
        ("Origin", {"fields": ("source", "address")}),
        (
            "Internals",
            {"classes": ("collapse",), "fields": ("id", "user_id", "action", "object_type", "object_id", "patient_id")},
        ),
    )
    readonly_fields = ("id", "time", "person", "action_in_words", "object_link", "patient_link", "changed_values")

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEntry]:
        return care_teams.limit_records(super().get_queryset(request), request.user, "patient_id", Q(patient_id=None))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> AuditEntry | None:
        entry = super().get_object(request, object_id, from_field)
        if entry is not None:
            cast(Any, entry).patient = self.visible_patients(request).filter(pk=entry.patient_id).first()
        return entry

    def title_of(self, obj: AuditEntry) -> str:
        return f"{obj.action_in_words}, {timestamp(obj.at)}"

    def get_urls(self) -> list[URLPattern]:
        export = self.admin_site.admin_view(self.export)
        return [path("export.csv", export, name="audit-csv"), *super().get_urls()]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ANN401 - Django's signature
        return AuditChangeList

    def export(self, request: HttpRequest) -> HttpResponseBase:
        """Returns all entries that the list with these parameters is about, and records the export."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            entries = self.get_changelist_instance(request).get_queryset(request)
        except IncorrectLookupParameters:
            return HttpResponseBadRequest("Wrong parameters.", content_type="text/plain")
        record(request, Action.EXPORT, AuditEntry)
        return csv_response(entries, self.visible_patients(request))

    def visible_patients(self, request: HttpRequest) -> PatientQuerySet:
        """The patients whose names the user may see. Erased patients have none."""
        patients = self.admin_site.get_model_admin(Patient)
        if not patients.has_view_permission(request):
            return Patient.objects.none()
        return cast(PatientQuerySet, patients.get_queryset(request)).filter(erased_at=None)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEntry], search_term: str
    ) -> tuple[QuerySet[AuditEntry], bool]:
        """Returns the entries of users whose names contain each word, and of patients with these words.

        They are looked up first. Patients are found as by `PatientQuerySet.named`. A user who has been deleted is found
        by the whole user name.
        """
        if not search_term.strip() or self.parse_id(search_term) is not None:
            return super().get_search_results(request, queryset, search_term)
        users, patients = User.objects.order_by(), self.visible_patients(request).named(search_term).order_by()
        for word in search_term.split():
            users = users.filter(
                Q(username__icontains=word) | Q(first_name__icontains=word) | Q(last_name__icontains=word)
            )
        by_user = Q(user_id__in=list(users.values_list("pk", flat=True))) | Q(user_name=search_term.strip())
        by_patient = Q(patient_id__in=list(patients.values_list("pk", flat=True)))
        return queryset.filter(by_user | by_patient), False

    @admin.display(description="Time")
    def time(self, entry: AuditEntry) -> str:
        return timestamp(entry.at)

    @admin.display(description="Person")
    def person(self, entry: AuditEntry) -> str:
        if entry.user_id is None:
            return EMPTY
        url = reverse("admin:audit_auditentry_changelist", query={"user_id": entry.user_id})
        return format_html('<a href="{}">{}</a>', url, entry.user_name)

    @admin.display(description="Action")
    def action_in_words(self, entry: AuditEntry) -> str:
        return entry.action_in_words

    @admin.display(description="Object")
    def object_link(self, entry: AuditEntry) -> str:
        """The kind of the object and the beginning of its id, with a link to its page, if its kind has one."""
        if not entry.object_type:
            return EMPTY
        label, model_name = entry.object_type.split(".")
        words = f"{_kind(label, model_name)} {entry.object_id[:SHORT_ID]}".strip()
        try:
            url = reverse(f"admin:{label}_{model_name}_change", args=[entry.object_id]) if entry.object_id else ""
        except NoReverseMatch:
            url = ""
        return format_html('<a href="{}">{}</a>', url, words) if url else words

    @admin.display(description="Patient")
    def patient_link(self, entry: AuditEntry) -> str:
        if entry.patient_id is None:
            return EMPTY
        return link_to(cast(Any, entry).patient) if cast(Any, entry).patient else str(entry.patient_id)[:SHORT_ID]

    @admin.display(description="Changed")
    def changed(self, entry: AuditEntry) -> str:
        return ", ".join(name.replace("_", " ") for name in entry.changes) or EMPTY

    @admin.display(description="Changes")
    def changed_values(self, entry: AuditEntry) -> str:
        lines = ((name.replace("_", " "), _values(change)) for name, change in entry.changes.items())
        return format_html_join("", "<div>{}: {}</div>", lines) or EMPTY

    @admin.display(description="Source")
    def origin(self, entry: AuditEntry) -> str:
        return f"{entry.get_source_display()} {entry.address or ''}".strip()


def _kind(label: str, model_name: str) -> str:
    try:
        return str(apps.get_model(label, model_name)._meta.verbose_name)
    except LookupError:  # of an earlier version
        return model_name


def _values(change: list[Any] | None) -> str:
    """For example "0.9 → 1.0"."""
    if change is None:
        return "changed (the values are not kept)"
    old, new = ("none" if value is None else str(value) for value in change)
    return f"{old} → {new}"
