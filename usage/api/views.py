"""What was used, by day and by month, and whether it will last."""

import uuid
from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
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
from voicecare.api.pagination import Pages
from voicecare.patients.models import Patient


class UsagePages(Pages):
    page_size = 100  # the days and months that are shown unasked are one page


class _Usage(generics.ListAPIView):
    pagination_class = UsagePages
    asked: type[UsageFilter]
    by_month: bool

    def get_queryset(self) -> QuerySet[DailyUsage, Any]:
        wanted = self.asked(data=self.request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        said = wanted.validated_data
        usage = _visible(self.request).filter(day__range=(said["from"], said["to"]))
        if "patient" in said:
            usage = usage.filter(patient=said["patient"])
        return queries.usage_rows(usage, by_month=self.by_month, group=said.get("group", ""))


class Daily(_Usage):
    """Days on which something was used, the earliest first; the last 30 days, unless others are asked for."""

    serializer_class: type[serializers.Serializer] = DailySerializer
    asked, by_month = UsageFilter, False

    @extend_schema(operation_id="daily_usage", parameters=[UsageFilter])
    def get(self, request: Request) -> Response:
        return super().get(request)


class Monthly(_Usage):
    """Months in which something was used, the earliest first; the last 12, unless others are asked for."""

    serializer_class: type[serializers.Serializer] = MonthlySerializer
    asked, by_month = MonthlyFilter, True

    @extend_schema(operation_id="monthly_usage", parameters=[MonthlyFilter])
    def get(self, request: Request) -> Response:
        return super().get(request)


class Quota(APIView):
    @extend_schema(operation_id="quota", responses=QuotaSerializer)
    def get(self, request: Request) -> Response:
        """The credits of the account at the speech provider, which all patients share."""
        return Response(QuotaSerializer(queries.quota_status()).data)


class Budget(APIView):
    @extend_schema(operation_id="patient_budget", responses=BudgetSerializer)
    def get(self, request: Request, id: uuid.UUID) -> Response:
        """What of the patient's monthly budget is used. What does not fit is not spoken: `over_budget`."""
        patient = get_object_or_404(Patient.objects.visible_to(request.user), pk=id)
        return Response(BudgetSerializer(budgets.budget_status(patient)).data)


def _visible(request: Request) -> QuerySet[DailyUsage]:
    """Staff see all of it, also what belongs to no patient and what is left of erased ones."""
    every = DailyUsage.objects.all()
    if getattr(request.user, "is_staff", False):
        return every
    return every.filter(patient__in=Patient.objects.visible_to(request.user).values("pk"))
