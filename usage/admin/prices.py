"""Prices of credits. They are entered here."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Field
from django.http import HttpRequest

from usage.models import Price
from usage.prices import plain
from voicecare.admin.conflicts import ConflictAdmin


@admin.register(Price)
class PriceAdmin(ConflictAdmin):
    list_display = ("price_model", "valid_from", "price")
    fields = ("model", "valid_from", "per_1000_credits")

    def formfield_for_dbfield(self, db_field: Field, request: HttpRequest, **options: Any) -> Any:  # noqa: ANN401
        formfield = super().formfield_for_dbfield(db_field, request, **options)
        if db_field.name == "per_1000_credits" and formfield:
            formfield.help_text = f"In {settings.PRICE_CURRENCY}. Zero means free."
        return formfield

    @admin.display(description="Model", ordering="model")
    def price_model(self, price: Price) -> str:
        return price.model or "All other models"

    @admin.display(description="Price of 1,000 credits", ordering="per_1000_credits")
    def price(self, price: Price) -> str:
        return f"{plain(price.per_1000_credits)} {settings.PRICE_CURRENCY}"
