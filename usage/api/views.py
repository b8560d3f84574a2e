"""REST endpoints: usage by day and month, the account's quota, and a patient's budget."""

import uuid
from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils.functional import cached_property
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from usage import budgets
from usage.api.serializers import (
    BudgetSerializer,
    DailySerializer,
    MonthlyFilter,
    MonthlySerializer,
    QuotaSerializer,
    UsageFilter,
)
from usage.models import DailyUsage
from usage.reports import queries
from voicecare.api.pagination import CursorPagination
from voicecare.patients import care_teams
from voicecare.patients.models import Patient


class UsagePages(CursorPagination):
    page_size = 100  # the default ranges fit into one page


class _UsageView(generics.ListAPIView):
    pagination_class = UsagePages
    required_permissions = {"GET": "usage.view_dailyusage"}
    filter_class: type[UsageFilter]
    by_month: bool

    @cached_property
    def _chosen(self) -> dict[str, Any]:
        parameters = self.filter_class(data=self.request.query_params.dict(), context=self.get_serializer_context())
        parameters.is_valid(raise_exception=True)
        chosen: dict[str, Any] = parameters.validated_data
        return chosen

    @cached_property
    def _usage(self) -> QuerySet[DailyUsage]:
        chosen = self._chosen
        usage = DailyUsage.objects.filter(day__range=(chosen["from"], chosen["to"]))
        usage = care_teams.limit_records(usage, self.request.user)
        if "patient" in chosen:
            usage = usage.filter(patient=chosen["patient"])
        if "clinic" in chosen:
            usage = usage.filter(patient__in=Patient.objects.filter(clinic=chosen["clinic"]).order_by().values("pk"))
        return usage

    def get_queryset(self) -> QuerySet[DailyUsage, Any]:
        return queries.usage_rows(self._usage, by_month=self.by_month, group=self._chosen.get("group", ""))

    def paginate_queryset(self, queryset: QuerySet[DailyUsage, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the rows of the requested page, with their cost."""
        rows = super().paginate_queryset(queryset) or []
        group = self._chosen.get("group", "")
        costs = queries.costs_of_rows(rows, self._usage, by_month=self.by_month, group=group)
        return [{**row, "cost": cost} for row, cost in zip(rows, costs, strict=True)]


class Daily(_UsageView):
    """Days with usage, earliest first. The default range is the last 30 days."""

    serializer_class: type[serializers.Serializer] = DailySerializer
    filter_class, by_month = UsageFilter, False

    @extend_schema(operation_id="list_daily_usage", summary="List the usage of each day", parameters=[UsageFilter])
    def get(self, request: Request) -> Response:
        return super().get(request)


class Monthly(_UsageView):
    """Months with usage, earliest first. The default range is the last 12 months."""

    serializer_class: type[serializers.Serializer] = MonthlySerializer
    filter_class, by_month = MonthlyFilter, True

    @extend_schema(
        operation_id="list_monthly_usage", summary="List the usage of each month", parameters=[MonthlyFilter]
    )
    def get(self, request: Request) -> Response:
        return super().get(request)


class Quota(APIView):
    required_permissions = {"GET": "usage.view_dailyusage"}

    @extend_schema(operation_id="get_quota", summary="Get the credits of the account", responses=QuotaSerializer)
    def get(self, request: Request) -> Response:
        """Return the credits of the account at the speech provider, which all patients share."""
        return Response(QuotaSerializer(queries.quota_status()).data)


class Budget(APIView):
    required_permissions = {"GET": "usage.view_dailyusage"}

    @extend_schema(operation_id="get_budget", summary="Get the budget of a patient", responses=BudgetSerializer)
    def get(self, request: Request, id: uuid.UUID) -> Response:
        """Return the patient's monthly budget. Speech over the budget fails with `over_budget`."""
        patient = get_object_or_404(Patient.objects.visible_to(request.user), pk=id)
        return Response(BudgetSerializer(budgets.budget_status(patient)).data)
