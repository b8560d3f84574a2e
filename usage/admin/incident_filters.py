"""The filters of the list of incidents: by their status, and by clinic."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest

from usage.models import Incident
from voicecare.patients.clinic_filter import ClinicFilter
from voicecare.patients.models import Patient, Voice

_STATES = {
    "open": ("Open", Q(resolved_at=None)),
    "unacknowledged": ("Not acknowledged", Q(resolved_at=None, acknowledged_at=None)),
    "muted": ("Muted", Q(resolved_at=None, muted_until__gt=Now())),
    "resolved": ("Resolved", Q(resolved_at__isnull=False)),
    "all": ("All", Q()),
}
_OTHER_LIMITS = ("key", "key__in", "resolved_at__isnull", SEARCH_VAR)


class StatusFilter(admin.SimpleListFilter):
    """Open incidents by default. A list that is limited by a key or a search has all of them by default."""

    title = "status"
    parameter_name = "status"

    @staticmethod
    def shows_open_ones(request: HttpRequest) -> bool:
        """Whether the list has open incidents only, which are few."""
        return _chosen(request) not in ("resolved", "all")

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(value, words) for value, (words, _) in _STATES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Incident]) -> QuerySet[Incident]:
        return queryset.filter(_STATES[_chosen(request)][1])

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for value, words in self.lookup_choices:
            yield {
                "selected": value == _chosen(self.request),
                "query_string": changelist.get_query_string({self.parameter_name: str(value)}),
                "display": words,
            }


def _chosen(request: HttpRequest) -> str:
    chosen = request.GET.get(StatusFilter.parameter_name, "")
    if chosen in _STATES:
        return chosen
    return "all" if any(name in request.GET for name in _OTHER_LIMITS) else "open"


class IncidentClinicFilter(ClinicFilter):
    """The incidents about a clinic, its patients and their cloned voices. Their keys are ids."""

    def of_patients(self, incidents: QuerySet[Incident], patients: QuerySet[Patient]) -> QuerySet[Incident]:
        keys = patients.values_list("pk", flat=True)
        voices = Voice.objects.filter(patient__in=patients.values("pk")).values_list("pk", flat=True)
        return incidents.filter(key__in=[str(self.value()), *map(str, keys), *map(str, voices)])
