"""The filters of the audit trail."""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from voicecare.audit.models import Action, AuditEntry

FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2999, 12, 31)


class DateRangeFilter(admin.ListFilter):
    """Two days, both included. Either may be missing. There is no limit of their distance."""

    title = "dates"
    template = "admin/audit/auditentry/dates.html"
    parameters = ("from", "to")

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: type[Model], admin: ModelAdmin) -> None:
        super().__init__(request, params, model, admin)
        for name in self.parameters:
            if name in params:
                self.used_parameters[name] = params.pop(name)[-1]

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return [*self.parameters]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        first, last = (_day(str(self.used_parameters.get(name, ""))) for name in self.parameters)
        if first:
            queryset = queryset.filter(at__gte=_start(first))
        return queryset.filter(at__lt=_start(last + timedelta(days=1))) if last else queryset

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Yields the dates, and the other parameters of the URL, which the form of the filter sends again."""
        others = [(name, value) for name, value in self.request.GET.items() if name not in (*self.parameters, "p")]
        yield {
            **{name: self.used_parameters.get(name, "") for name in self.parameters},
            "others": others,
            "remove": changelist.get_query_string(remove=[*self.parameters]),
        }


class ActionFilter(admin.SimpleListFilter):
    """By the actions that this program records: the common ones, and those of all lists."""

    title = "action"
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        registered = model_admin.admin_site._registry.values()
        names = {str(name) for other in registered for name in other.actions or ()}
        entries = [AuditEntry(action=name) for name in {*Action.values, *names}]
        return sorted(((entry.action, entry.action_in_words) for entry in entries), key=lambda choice: choice[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(action=self.value()) if self.value() else queryset


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        return min(max(date.fromisoformat(text), FIRST_DAY), LAST_DAY)
    except ValueError as error:
        raise IncorrectLookupParameters(error) from error


def _start(day: date) -> datetime:
    return datetime.combine(day, time.min, timezone.get_current_timezone())
