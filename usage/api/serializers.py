"""What clinicians ask of usage, and how it is told."""

import uuid
from datetime import date, timedelta
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from usage.ledger.rollup import month_after
from usage.models import NO_ID, UsageEvent
from usage.reports import queries

SUMS_EXAMPLE = {"characters": 18_240, "credits": 9_120, "saved_characters": 5_310, "requests": 402}
BUDGET_EXAMPLE = OpenApiExample(
    "A budget", {"month": "2026-11", "budget": 50000, "used": 12400, "remaining": 37600}, response_only=True
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
FIRST_DAY, LAST_DAY = (
    date(2000, 1, 1),
    date(8999, 12, 31),
)  # nothing of this is older, and the calendar has room before it


class DayField(serializers.DateField):
    default_error_messages = {"range": "A day from 2000 to 9000 is needed."}

    def to_internal_value(self, value: Any) -> date:  # noqa: ANN401 - DRF's own
        day = super().to_internal_value(value)
        if not FIRST_DAY <= day <= LAST_DAY:
            self.fail("range")
        return day


class UsageFilter(serializers.Serializer):
    """Days in USAGE_TIME_ZONE, both ends included."""

    patient = serializers.UUIDField(required=False)
    group = serializers.ChoiceField(GROUPS, required=False)

    def get_fields(self) -> dict[str, serializers.Field]:
        return {"from": DayField(required=False), "to": DayField(required=False), **super().get_fields()}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        last = attrs.get("to") or queries.today()
        first = attrs.get("from") or self.default_start(last)
        if first > last:
            raise serializers.ValidationError({"from": ["It must not be after `to`."]})
        return {**attrs, "from": first, "to": last}

    def default_start(self, last: date) -> date:
        return last - timedelta(days=DEFAULT_DAYS - 1)


class MonthlyFilter(UsageFilter):
    """The months that hold these days, whole."""

    def default_start(self, last: date) -> date:
        years, month = divmod(last.year * 12 + last.month - DEFAULT_MONTHS, 12)
        return date(years, month + 1, 1)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        whole = super().validate(attrs)
        end = month_after(whole["to"].replace(day=1))
        return {**whole, "from": whole["from"].replace(day=1), "to": end - timedelta(days=1)}


@extend_schema_field({"type": "string", "format": "uuid", "nullable": True})
class NullableIdField(serializers.UUIDField):
    """Null for what belongs to no patient or voice."""

    def to_representation(self, value: uuid.UUID) -> Any:  # noqa: ANN401 - DRF's own
        return None if value == NO_ID else super().to_representation(value)


class _SumsSerializer(serializers.Serializer):
    """Of the groups' keys the row has the one that was asked for."""

    patient = NullableIdField(required=False)
    voice = NullableIdField(required=False)
    model = serializers.CharField(required=False, allow_blank=True)
    kind = serializers.ChoiceField(UsageEvent.Kind.choices, required=False)
    characters = serializers.IntegerField(help_text="Sent to the provider and answered.")
    credits = serializers.IntegerField(help_text="What the provider bills for them.")
    saved_characters = serializers.IntegerField(help_text="Spoken from the cache or in the offline voice.")
    requests = serializers.IntegerField(help_text="To the provider, whatever became of them.")


@extend_schema_serializer(
    examples=[OpenApiExample("A day", {"date": "2026-11-23", **SUMS_EXAMPLE}, response_only=True)]
)
class DailySerializer(_SumsSerializer):
    date = serializers.DateField(source="start")


@extend_schema_field({"type": "string", "pattern": r"^\d{4}-\d{2}$"})
class MonthField(serializers.DateField):
    """A day shown as its month, which is no date to a reader of the schema."""


@extend_schema_serializer(
    examples=[OpenApiExample("A month", {"month": "2026-11", **SUMS_EXAMPLE}, response_only=True)]
)
class MonthlySerializer(_SumsSerializer):
    month = MonthField(source="start", format="%Y-%m", help_text="Like 2026-11.")


@extend_schema_serializer(examples=[BUDGET_EXAMPLE])
class BudgetSerializer(serializers.Serializer):
    """What was spoken to a patient in this month, of what they may have."""

    month = MonthField(format="%Y-%m", help_text="Like 2026-11.")
    budget = serializers.IntegerField(allow_null=True, help_text="Characters; null: without limit.")
    used = serializers.IntegerField()
    remaining = serializers.IntegerField(allow_null=True)


class ForecastSerializer(serializers.Serializer):
    """If credits are used on as in the last seven days."""

    credits_a_day = serializers.FloatField()
    used_at_reset = serializers.IntegerField()
    runs_out_on = serializers.DateField(allow_null=True, help_text="Null: they last to the reset.")


@extend_schema_serializer(examples=[QUOTA_EXAMPLE])
class QuotaSerializer(serializers.Serializer):
    """As the provider told it last; null: not told, or without a limit."""

    limit = serializers.IntegerField(allow_null=True)
    used = serializers.IntegerField(allow_null=True)
    remaining = serializers.IntegerField(allow_null=True)
    exhausted = serializers.BooleanField()
    resets_at = serializers.DateTimeField(allow_null=True)
    forecast = ForecastSerializer(allow_null=True, help_text="Null: there is nothing to say yet.")
