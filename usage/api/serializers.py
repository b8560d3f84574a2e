"""Query parameters and responses of the usage endpoints."""

import uuid
from datetime import date, timedelta
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from usage.ledger.rollup import month_after
from usage.models import NO_ID, UsageEvent
from usage.prices import Cost, plain
from usage.reports import queries
from voicecare.patients import care_teams
from voicecare.patients.access import may
from voicecare.patients.models import Clinic

COST_EXAMPLE = {"cost": "0.912", "currency": "USD", "unpriced_credits": 0}
SUMS_EXAMPLE = {"characters": 18_240, "credits": 9_120, "saved_characters": 5_310, "requests": 402, **COST_EXAMPLE}
BUDGET_EXAMPLE = OpenApiExample(
    "A budget",
    {"month": "2026-11", "budget": 50000, "used": 12400, "remaining": 37600, **COST_EXAMPLE, "cost": "0.62"},
    response_only=True,
)
QUOTA_EXAMPLE = OpenApiExample(
    "Two thirds are left",
    {
        "limit": 100_000,
        "used": 33_000,
        "remaining": 67_000,
        "exhausted": False,
        "resets_at": "2026-12-01T00:00:00Z",
        "forecast": {"credits_a_day": 1400.5, "used_at_reset": 44_204, "runs_out_on": None},
    },
    response_only=True,
)
GROUPS = ("patient", "voice", "model", "kind")
DEFAULT_DAYS, DEFAULT_MONTHS = 30, 12
# No data is older, and dates can be calculated beyond both ends.
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(8999, 12, 31)


class DayField(serializers.DateField):
    default_error_messages = {"range": "The day must be between 2000-01-01 and 8999-12-31."}

    def to_internal_value(self, value: Any) -> date:  # noqa: ANN401 - DRF's own
        day = super().to_internal_value(value)
        if not FIRST_DAY <= day <= LAST_DAY:
            self.fail("range")
        return day


class VisibleClinicField(serializers.PrimaryKeyRelatedField):
    """The id of a clinic that `GET clinics/` has for the user. Another id is an unknown one."""

    def get_queryset(self) -> QuerySet[Clinic]:
        user = self.context["request"].user
        return care_teams.visible_clinics(user) if may(user, "patients.view_clinic") else Clinic.objects.none()


class UsageFilter(serializers.Serializer):
    """The query parameters of the usage endpoints. Days are in USAGE_TIME_ZONE, both ends included."""

    patient = serializers.UUIDField(required=False)
    clinic = VisibleClinicField(
        queryset=Clinic.objects.all(),
        pk_field=serializers.UUIDField(),
        required=False,
        help_text="The usage of the patients who belong to this clinic now.",
    )
    group = serializers.ChoiceField(GROUPS, required=False)

    def get_fields(self) -> dict[str, serializers.Field]:
        return {"from": DayField(required=False), "to": DayField(required=False), **super().get_fields()}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        last = attrs.get("to") or queries.today()
        first = attrs.get("from") or self.default_start(last)
        if first > last:
            raise serializers.ValidationError({"from": ["It must not be after `to`."]}, "after_end")
        return {**attrs, "from": first, "to": last}

    def default_start(self, last: date) -> date:
        return last - timedelta(days=DEFAULT_DAYS - 1)


class MonthlyFilter(UsageFilter):
    """The query parameters of monthly usage. The range is extended to whole months."""

    def default_start(self, last: date) -> date:
        years, month = divmod(last.year * 12 + last.month - DEFAULT_MONTHS, 12)
        return date(years, month + 1, 1)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        whole = super().validate(attrs)
        end = month_after(whole["to"].replace(day=1))
        return {**whole, "from": whole["from"].replace(day=1), "to": end - timedelta(days=1)}


@extend_schema_field({"type": "string", "format": "uuid", "nullable": True})
class NullableIdField(serializers.UUIDField):
    """The id of a patient or voice. Null for usage without a patient or voice."""

    def to_representation(self, value: uuid.UUID) -> Any:  # noqa: ANN401 - DRF's own
        return None if value == NO_ID else super().to_representation(value)


class _CostSerializer(serializers.Serializer):
    """The fields of a row's cost. The row has it as `cost`, a `usage.prices.Cost`."""

    cost = serializers.SerializerMethodField(
        help_text="The exact cost of the credits, a decimal number as a string. Null if none of them has a price."
    )
    currency = serializers.SerializerMethodField(help_text="The currency of `cost`, a code of ISO 4217.")
    unpriced_credits = serializers.SerializerMethodField(
        help_text="Credits that `cost` does not include, because they have no price."
    )

    @extend_schema_field({"type": "string", "format": "decimal", "nullable": True})
    def get_cost(self, row: Any) -> str | None:  # noqa: ANN401 - a dict or an object
        amount = self._cost_of(row).amount
        return None if amount is None else plain(amount)

    @extend_schema_field({"type": "string", "pattern": "^[A-Z]{3}$", "nullable": True})
    def get_currency(self, row: Any) -> str | None:  # noqa: ANN401
        return None if self._cost_of(row).amount is None else settings.PRICE_CURRENCY

    def get_unpriced_credits(self, row: Any) -> int:  # noqa: ANN401
        return self._cost_of(row).unpriced_credits

    def _cost_of(self, row: Any) -> Cost:  # noqa: ANN401
        cost: Cost = row["cost"] if isinstance(row, dict) else row.cost
        return cost


class _SumsSerializer(_CostSerializer):
    """The usage of one day or month. With `group`, a row also contains the key of its group, for example `patient`."""

    patient = NullableIdField(required=False)
    voice = NullableIdField(required=False)
    model = serializers.CharField(required=False, allow_blank=True)
    kind = serializers.ChoiceField(UsageEvent.Kind.choices, required=False)
    characters = serializers.IntegerField(help_text="Characters sent to the provider and answered.")
    credits = serializers.IntegerField(help_text="Credits billed by the provider.")
    saved_characters = serializers.IntegerField(help_text="Characters spoken from the cache or in the offline voice.")
    requests = serializers.IntegerField(help_text="Requests to the provider, including failed ones.")


@extend_schema_serializer(
    examples=[OpenApiExample("A day", {"date": "2026-11-23", **SUMS_EXAMPLE}, response_only=True)]
)
class DailySerializer(_SumsSerializer):
    date = serializers.DateField(source="start")


@extend_schema_field({"type": "string", "pattern": r"^\d{4}-\d{2}$"})
class MonthField(serializers.DateField):
    """A day shown as its month. The schema describes a string, because a month is not a date."""


@extend_schema_serializer(
    examples=[OpenApiExample("A month", {"month": "2026-11", **SUMS_EXAMPLE}, response_only=True)]
)
class MonthlySerializer(_SumsSerializer):
    month = MonthField(source="start", format="%Y-%m", help_text="For example 2026-11.")


@extend_schema_serializer(examples=[BUDGET_EXAMPLE])
class BudgetSerializer(_CostSerializer):
    """The budget of a patient, and the characters spoken to them this month with their cost."""

    month = MonthField(format="%Y-%m", help_text="For example 2026-11.")
    budget = serializers.IntegerField(allow_null=True, help_text="Characters, or null for no limit.")
    used = serializers.IntegerField()
    remaining = serializers.IntegerField(allow_null=True)


class ForecastSerializer(serializers.Serializer):
    """The expected usage of credits until the reset, at the rate of the last seven days."""

    credits_a_day = serializers.FloatField()
    used_at_reset = serializers.IntegerField()
    runs_out_on = serializers.DateField(allow_null=True, help_text="Null if the credits last until the reset.")


@extend_schema_serializer(examples=[QUOTA_EXAMPLE])
class QuotaSerializer(serializers.Serializer):
    """The account's credits as last reported by the provider.

    Numbers are null if the provider has not reported them. `limit` and `remaining` are null if there is no limit.
    """

    limit = serializers.IntegerField(allow_null=True)
    used = serializers.IntegerField(allow_null=True)
    remaining = serializers.IntegerField(allow_null=True)
    exhausted = serializers.BooleanField()
    resets_at = serializers.DateTimeField(allow_null=True)
    forecast = ForecastSerializer(allow_null=True, help_text="Null if there is no forecast yet.")
