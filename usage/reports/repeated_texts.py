"""Texts that were paid for again and again, and what the phrase cache has saved, from the events of the last month.

Texts are known by their digests only (`usage.ledger.text_digests`). `events` are those of `recent_events`, or some of
them. The numbers of queries do not depend on the number of texts.
"""

import uuid
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db.models import CharField, Count, Max, Min, Q, QuerySet, Sum
from django.db.models.functions import Cast, TruncDate

from usage.ledger.rollup import time_zone
from usage.ledger.text_digests import DIGEST_DAYS
from usage.models import UsageEvent
from usage.prices import Cost, PriceList
from usage.reports import queries

MIN_TIMES = 3  # a text that was paid for less often is no repeated text
MAX_TEXTS = 500  # those that cost most; the others save little

Kind = UsageEvent.Kind
PAID = Q(kind__in=(Kind.LIVE, Kind.RETRY, Kind.BACKUP, Kind.HEDGE), characters__gt=0)
NO_COST = Cost(None, 0)
FROM_CACHE = Q(kind=Kind.CACHE, saved_characters__gt=0)


@dataclass(frozen=True, slots=True)
class RepeatedText:
    """A text that was paid for `times` times. `characters` and `cost` are the sums, `length` the characters of one.

    `event_id` is one of its events, and `patient_id` the patient of that event. `patients` is their number.
    """

    digest: str
    event_id: uuid.UUID
    patient_id: uuid.UUID
    times: int
    patients: int
    length: int
    characters: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How often a text was played from the cache and how often it was paid for, and the characters that were saved."""

    hits: int = 0
    paid: int = 0
    saved_characters: int = 0

    @property
    def hit_rate(self) -> float | None:
        """The share of the cache, from 0 to 1. None if the text was not spoken."""
        spoken = self.hits + self.paid
        return self.hits / spoken if spoken else None


def most_paid(events: QuerySet[UsageEvent], without: Collection[str] = ()) -> list[RepeatedText]:
    """Return the repeated texts that cost most, without those with the digests `without`. Three queries."""
    paid: QuerySet[UsageEvent, Any] = events.filter(PAID, patient__isnull=False).exclude(text_digest__in=without)
    found = list(_repeated(paid)[:MAX_TEXTS])
    by_id = {uuid.UUID(row["event_id"]): row for row in found}
    patient_ids: dict[uuid.UUID, Any] = dict(UsageEvent.objects.filter(pk__in=by_id).values_list("pk", "patient"))
    costs = _costs(paid.filter(text_digest__in=[row["text_digest"] for row in found]))
    return [
        RepeatedText(
            row["text_digest"],
            event_id,
            patient_ids[event_id],
            row["times"],
            row["patients"],
            row["length"],
            row["total_characters"],
            costs.get(row["text_digest"], NO_COST),
        )
        for event_id, row in by_id.items()
    ]


def repetitions_of(events: QuerySet[UsageEvent], digest: str) -> RepeatedText | None:
    """Return the figures of one text, or None if it was not paid for often enough."""
    return next(iter(most_paid(events.filter(text_digest=digest))), None)


def cache_use(events: QuerySet[UsageEvent], digests: Collection[str]) -> dict[str, CacheUse]:
    """Return the use of the cache for each of these texts that was spoken. One query."""
    rows = events.filter(text_digest__in=digests).values("text_digest")
    sums = rows.annotate(
        hits=Count("pk", filter=FROM_CACHE),
        paid=Count("pk", filter=PAID),
        saved=Sum("saved_characters", filter=FROM_CACHE, default=0),
    )
    return {row["text_digest"]: CacheUse(row["hits"], row["paid"], row["saved"]) for row in sums}


def average_price() -> Decimal | None:
    """Return the average price of a character in the last month, in PRICE_CURRENCY. None without a price or usage."""
    prices = PriceList.read()
    if not prices:
        return None
    today = queries.today()
    total = queries.range_stats(today - timedelta(days=DIGEST_DAYS - 1), today, prices=prices).total
    return None if total.cost is None or not total.characters else total.cost / total.characters


def _repeated(paid: QuerySet[UsageEvent, Any]) -> QuerySet[UsageEvent, Any]:
    """Return a dict for each text that was paid for often enough, those with the most characters first."""
    grouped: QuerySet[Any, Any] = paid.values("text_digest").annotate(
        times=Count("pk"),
        patients=Count("patient", distinct=True),
        length=Max("requested_characters"),
        total_characters=Sum("characters"),
        event_id=Min(Cast("pk", CharField())),  # PostgreSQL has no minimum of UUIDs
    )
    return grouped.filter(times__gte=MIN_TIMES).order_by("-total_characters", "text_digest")


def _costs(paid: QuerySet[UsageEvent, Any]) -> dict[str, Cost]:
    prices = PriceList.read()
    rows = paid.annotate(day=TruncDate("started_at", tzinfo=time_zone()), price=prices.index())
    credits: dict[str, list[tuple[int | None, int]]] = defaultdict(list)
    for digest, price, number in rows.values_list("text_digest", "price").annotate(number=Sum("credits")):
        credits[digest].append((price, number))
    return {digest: prices.cost(of_text) for digest, of_text in credits.items()}
