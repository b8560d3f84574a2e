"""Admin lists of tables that grow with time.

A list reads the rows of one period, or of one id, and never the whole table.
"""

import uuid
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.paginator import Paginator
from django.db.models import DateTimeField, Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property

MONTHS = 24  # offered by the filter; older rows are found by their id
MAX_COUNT = 1000  # rows in a list; the filters show others
SERVER_SPEECH_PREFIX = "srv-"  # of the ids that devices get


class BoundedPaginator(Paginator):
    """Counts at most MAX_COUNT rows, and shows no more than these.

    The query for the count reads an index in the order of the list, so it can stop after MAX_COUNT rows.
    """

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # the admin only has querysets
        return rows.values("pk")[:MAX_COUNT].count()

    @property
    def is_cut(self) -> bool:
        """Whether the pages show MAX_COUNT rows, so that there may be more."""
        return self.count == MAX_COUNT


class PeriodFilter(admin.SimpleListFilter):
    """Limits a list to a number of past days, or to one month.

    Without a choice, to the `default_days` of the `PeriodAdmin`. A list that is already limited by an id has rows of
    any date, unless a period is chosen.
    """

    title = "period"
    parameter_name = "period"

    def __init__(
        self, request: HttpRequest, params: dict[str, Any], model: type[Model], model_admin: "PeriodAdmin"
    ) -> None:
        self._admin = model_admin
        super().__init__(request, params, model, model_admin)

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        """Returns the choices of the filter: first numbers of past days, then the last months."""
        days = [(str(days), f"Past {days} days") for days in sorted({1, 7, 30, self._admin.default_days})]
        months, month = [], timezone.localdate().replace(day=1)
        for _ in range(MONTHS):
            months.append((f"{month:%Y-%m}", f"{month:%B %Y}"))
            month = (month - timedelta(days=1)).replace(day=1)
        return [*days, *months]

    def value(self) -> str | None:
        """Returns the chosen period: a number of days, or a month as `YYYY-MM`.

        None if none of the choices is selected.
        """
        chosen = super().value()
        return chosen if chosen in {value for value, _ in self.lookup_choices} else None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        if chosen is None:
            if self._admin.needs_no_period(request):
                return queryset
            chosen = str(self._admin.default_days)
        field = self._admin.period_field
        if chosen.isdecimal():
            return queryset.filter(**{f"{field}__gte": self._bound(timezone.now() - timedelta(days=int(chosen)))})
        month = date.fromisoformat(f"{chosen}-01")
        end = (month + timedelta(days=31)).replace(day=1)
        start_time, end_time = (
            datetime.combine(day, time.min, timezone.get_current_timezone()) for day in (month, end)
        )
        return queryset.filter(**{f"{field}__gte": self._bound(start_time), f"{field}__lt": self._bound(end_time)})

    def _bound(self, moment: datetime) -> datetime | date:
        """Returns the moment in the type of the filtered column, which has either times or dates."""
        is_moment = isinstance(self._admin.model._meta.get_field(self._admin.period_field), DateTimeField)
        return moment if is_moment else timezone.localdate(moment)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        any_date = self._admin.needs_no_period(self.request)
        default = "Any date" if any_date else f"Past {self._admin.default_days} days"
        yield {
            "selected": self.value() is None,
            "query_string": changelist.get_query_string(remove=[self.parameter_name]),
            "display": default,
        }
        for value, display in self.lookup_choices:
            if display != default:
                yield {
                    "selected": self.value() == value,
                    "query_string": changelist.get_query_string({self.parameter_name: value}),
                    "display": display,
                }


class PeriodAdmin(admin.ModelAdmin):
    """Base class for the admin of a table that grows with time.

    `period_field` is the column by which the list is sorted and the period is chosen. It has an index. `id_fields` are
    the columns that are searched for an id. Each has an index. `id_parameters` are parameters of the URL, other than
    the search term, that limit the list to a few rows with an index.
    """

    period_field: str
    default_days = 7
    id_fields: tuple[str, ...] = ("id",)
    id_parameters: tuple[str, ...] = ()
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()  # the order of another column would need a sort of all rows
    search_help_text = "An id finds rows of any date. Other words search in the chosen period."

    def needs_no_period(self, request: HttpRequest) -> bool:
        """Whether the URL already limits the list to a few rows, so that no default period is applied.

        The limit is an id or dates.
        """
        own_bounds = (f"{self.period_field}__gte", f"{self.period_field}__lt")
        if any(name in request.GET for name in (*self.id_parameters, *own_bounds)):
            return True
        return self.parse_id(request.GET.get(SEARCH_VAR, "")) is not None

    def parse_id(self, term: str) -> uuid.UUID | None:
        """Returns the id in the search term, or None if it is not an id.

        The ids of the server's speeches have the prefix `srv-` in the device protocol, which is removed here.
        """
        try:
            return uuid.UUID(term.strip().removeprefix(SERVER_SPEECH_PREFIX))
        except ValueError:
            return None

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Returns the rows that have the searched id in one of the `id_fields`, and False: no row is repeated.

        The columns are searched one after the other. For one query with OR, the database would read the whole table. A
        search term that is not an id is searched by Django.
        """
        key = self.parse_id(search_term)
        if key is None:
            return super().get_search_results(request, queryset, search_term)
        for field in self.id_fields:
            rows = queryset.filter(**{field: key})
            if list(rows.values_list("pk", flat=True)[:1]):  # `exists` would drop the order, which chooses the index
                return rows, False
        return queryset.none(), False
