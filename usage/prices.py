"""Prices and the cost of usage.

A price is for 1,000 credits, because credits are what the provider bills: they contain the discount of a model, the
factor of a voice, and rounding. The price of a day is the latest one that is valid on that day. A price of the row's
model comes before a price of all models. A cost is a sum of whole credits times prices, without rounding. Amounts are
rounded only where they are displayed.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Self

from django.db.models import Case, IntegerField, Q, Value, When

from usage.models import Price


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of some usage in PRICE_CURRENCY.

    `amount` is None if no credit has a price. `unpriced_credits` are not part of the amount.
    """

    amount: Decimal | None
    unpriced_credits: int


class PriceList:
    """All prices at one moment. The index of a price is its place in `prices`."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self.prices = sorted(prices, key=lambda price: (not price.model, price.model, -price.valid_from.toordinal()))

    @classmethod
    def read(cls) -> Self:
        """Return the prices of the database. One query."""
        return cls(Price.objects.all())

    def __bool__(self) -> bool:
        return bool(self.prices)

    @property
    def version(self) -> str:
        """A short text that is different after every change of a price, for the keys of cached figures."""
        facts = [(price.model, price.valid_from.isoformat(), str(price.per_1000_credits)) for price in self.prices]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def index(self) -> Case:
        """Return the expression of the index of a `DailyUsage` row's price, NULL without a price."""
        conditions = [
            When(Q(day__gte=price.valid_from, **({"model": price.model} if price.model else {})), then=Value(index))
            for index, price in enumerate(self.prices)
        ]
        return Case(*conditions, default=Value(None), output_field=IntegerField())

    def cost_on(self, day: date, credits_by_model: Iterable[tuple[str, int]]) -> Cost:
        """Return the cost of the credits of one day, which are grouped by model."""

        def index(model: str) -> int | None:
            fits = (
                place
                for place, price in enumerate(self.prices)
                if price.model in ("", model) and price.valid_from <= day
            )
            return next(fits, None)

        return self.cost((index(model), credits) for model, credits in credits_by_model)

    def cost(self, credits_by_index: Iterable[tuple[int | None, int]]) -> Cost:
        """Return the cost of credits that are grouped by the index of their price.

        Usage without credits costs nothing, if there are prices at all.
        """
        amount, credits, unpriced = Decimal(), 0, 0
        for index, number in credits_by_index:
            credits += number
            if index is None:
                unpriced += number
            else:
                amount += number * self.prices[index].per_1000_credits.scaleb(-3)
        is_known = bool(self) and (not unpriced or unpriced < credits)
        return Cost(amount if is_known else None, unpriced)


def plain(amount: Decimal) -> str:
    """Return the exact amount without an exponent and without zeros at the end, such as `0.0125` or `100`."""
    return f"{amount.normalize():f}"
