"""The figures of the dashboard and the REST API, and the number of their queries."""

import math
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from usage.ledger import events, rollup
from usage.ledger.events import Attempt
from usage.models import Price
from usage.reports import queries as figures
from usage.reports.queries import PeriodStats

pytestmark = pytest.mark.django_db

ALICE, BOB, VOICE, OTHER = (uuid.UUID(int=number) for number in range(1, 5))
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
TODAY = NOON.date()


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def record_usage(
    kind: str = "live", asked: int = 10, *, at: datetime = NOON, answered: bool = True, **fields: object
) -> Attempt:
    plain = {"source_id": uuid.uuid4(), "segment": 0, "attempt": 1, "patient_id": ALICE, "voice_id": VOICE}
    made = Attempt(**{**plain, "kind": kind, "requested_characters": asked, "started_at": at, **fields})
    if kind in ("cache", "offline"):
        made.outcome, made.saved_characters = "completed", asked
    elif answered:
        made.mark_answered("r", asked // 2)
    events.record_attempts([made])
    return made


def day(patient: uuid.UUID | None = None, at: date = TODAY) -> PeriodStats:
    (found,) = figures.daily_stats(at, at, patient_id=patient)
    return found


def test_each_kind_counts_in_its_figures():
    for kind, asked in {"live": 1, "retry": 2, "backup": 4, "cache": 8, "offline": 16, "probe": 32, "warm": 64}.items():
        record_usage(kind, asked)
    record_usage("preview", 128)
    found = day()
    assert (found.live, found.backup, found.other, found.saved) == (3, 4, 224, 24)
    assert found.characters == found.live + found.backup + found.other == 231
    assert (found.requests, found.backups, found.offline, found.failed) == (6, 1, 1, 0)
    assert found.credits == 0 + 1 + 2 + 16 + 32 + 64


def test_second_requests_have_figures_of_their_own_and_count_in_the_others():
    record_usage("live", 100)
    record_usage("hedge", 10, first_chunk_ms=300)
    record_usage("hedge", 20, first_chunk_ms=450, at=NOON - timedelta(days=1))
    record_usage("hedge", 40)  # it was answered, but the first one came first
    record_usage("hedge", 80, answered=False)
    yesterday = TODAY - timedelta(days=1)
    without_price = figures.range_stats(yesterday, TODAY).second_requests
    assert without_price == figures.SecondRequests(requests=4, characters=70, cost=None, won=2, p50_ms=300.0)
    Price.objects.create(model="", valid_from=yesterday, per_1000_credits=1000)
    Price.objects.create(model="", valid_from=TODAY, per_1000_credits=2000)
    for _ in range(2):  # the second time, the past days are in the cache
        found = figures.range_stats(yesterday, TODAY)
        assert found.second_requests == replace(without_price, cost=Decimal(10 * 1 + (5 + 20) * 2))
        assert found.total.cost == Decimal(10 * 1 + (50 + 5 + 20) * 2)
        assert (found.total.live, found.total.characters) == (170, 170)
    assert figures.range_stats(TODAY, TODAY, patient_id=BOB).second_requests == figures.SecondRequests(
        requests=0, characters=0, cost=Decimal(), won=0, p50_ms=None
    )


def test_failed_requests_count_as_requests_without_characters():
    lost = Attempt(uuid.uuid4(), 0, 1, "live", 10, started_at=NOON, outcome="failed")
    silent = Attempt(uuid.uuid4(), 0, 1, "live", 30, started_at=NOON)
    events.record_attempts(
        [lost, silent, Attempt(uuid.uuid4(), 0, 1, "offline", 10, started_at=NOON, outcome="failed")]
    )
    found = day()
    assert (found.requests, found.failed, found.characters, found.offline) == (2, 1, 0, 1)
    assert figures.unconfirmed_requests() == figures.UnconfirmedRequests(1, 30)


def test_a_range_has_all_days_including_both_ends():
    record_usage(at=NOON - timedelta(days=2))
    record_usage(at=NOON, asked=7)
    found = figures.daily_stats(TODAY - timedelta(days=3), TODAY)
    assert [one.start.day for one in found] == [7, 8, 9, 10]
    assert [one.characters for one in found] == [0, 10, 0, 7]
    assert figures.daily_stats(TODAY, TODAY - timedelta(days=1)) == []


def test_a_range_has_whole_months():
    for at in ("2025-12-31", "2026-01-01", "2026-03-31", "2026-04-01"):
        record_usage(at=datetime.fromisoformat(f"{at}T12:00:00+00:00"))
    found = figures.monthly_stats(date(2025, 12, 31), date(2026, 3, 1))
    assert [(one.start, one.characters) for one in found] == [
        (date(2025, 12, 1), 10),
        (date(2026, 1, 1), 10),
        (date(2026, 2, 1), 0),
        (date(2026, 3, 1), 10),
    ]


def test_months_are_the_sums_of_their_days():
    for number in range(70):
        record_usage(asked=number + 1, at=NOON - timedelta(days=number), first_chunk_ms=float(number * 20 + 1))
    for month in figures.monthly_stats(TODAY - timedelta(days=69), TODAY):
        around = figures.daily_stats(month.start, month.start + timedelta(days=31))
        within = [one for one in around if one.start.month == month.start.month]
        for name in ("live", "characters", "credits", "requests", "speeches"):
            assert getattr(month, name) == sum(getattr(one, name) for one in within)


def test_figures_can_be_limited_to_one_patient():
    record_usage(asked=10)
    record_usage(asked=20, patient_id=BOB)
    record_usage("probe", 40, patient_id=None)
    assert [day(who).characters for who in (ALICE, BOB, uuid.uuid4(), None)] == [10, 20, 0, 70]


def test_days_are_in_the_usage_time_zone(settings: Settings):
    settings.USAGE_TIME_ZONE = "Asia/Tokyo"
    record_usage(at=datetime(2026, 3, 10, 15, tzinfo=UTC))
    assert day(at=date(2026, 3, 11)).characters == 10


def test_the_highest_usage_comes_first():
    record_usage(asked=10)
    record_usage(asked=30, patient_id=BOB, voice_id=OTHER)
    record_usage("cache", 5)
    record_usage("probe", 20, patient_id=None, voice_id=VOICE)
    assert figures.top_shares("patient", TODAY, TODAY) == [
        figures.UsageShare(BOB, 30, 0, 15, None, 15, 1),
        figures.UsageShare(None, 20, 0, 10, None, 10, 1),
        figures.UsageShare(ALICE, 10, 5, 5, None, 5, 1),
    ]
    assert figures.top_shares("voice", TODAY, TODAY) == [
        figures.UsageShare(VOICE, 30, 5, 15, None, 15, 2),
        figures.UsageShare(OTHER, 30, 0, 15, None, 15, 1),
    ]
    assert figures.top_shares("voice", TODAY, TODAY, limit=1) == [figures.UsageShare(VOICE, 30, 5, 15, None, 15, 2)]


def test_previews_do_not_count_for_latency():
    record_usage(first_chunk_ms=100.0)
    record_usage("preview", first_chunk_ms=2900.0)
    assert (day().speeches, day().p95_ms) == (1, 97.5)


@pytest.mark.parametrize(
    ("times", "p50", "p95"),
    [
        ([], None, None),
        ([10.0], 25.0, 47.5),
        ([120.0] * 100, 125.0, 147.5),
        ([120.0] * 95 + [900.0] * 5, 126.3, 150.0),
        ([120.0] * 90 + [900.0] * 10, 127.8, 875.0),
        ([9000.0], 3000.0, 3000.0),
    ],
)
def test_percentiles_are_calculated_from_the_buckets(times: list[float], p50: float | None, p95: float | None):
    for ms in times:
        record_usage(first_chunk_ms=ms)
    assert (day().p50_ms, day().p95_ms, day().speeches) == (p50, p95, len(times))


@given(st.lists(st.floats(0, 3000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_in_the_same_bucket_as_the_exact_one(times: list[float], share: float):
    counts = [[rollup.chunk_column(ms) for ms in times].count(name) for name in rollup.CHUNK_COLUMNS]
    true = sorted(times)[max(math.ceil(len(times) * share), 1) - 1]
    upper = next(edge for edge in rollup.CHUNK_BOUNDS_MS if true <= edge)
    lower = max((edge for edge in rollup.CHUNK_BOUNDS_MS if edge < true), default=0)
    assert lower <= figures.percentile(counts, share) <= upper


def test_the_cost_does_not_grow_with_history():
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            figures.daily_stats(TODAY - timedelta(days=29), TODAY)
            figures.monthly_stats(TODAY - timedelta(days=365), TODAY)
            figures.top_shares("patient", TODAY - timedelta(days=29), TODAY)
            figures.top_shares("voice", TODAY - timedelta(days=29), TODAY)
        assert not any("usage_usageevent" in query["sql"] for query in captured)
        return len(captured)

    record_usage()
    first = queries()
    for number in range(200):
        record_usage(at=NOON - timedelta(days=number), patient_id=uuid.uuid4())
    cache.clear()
    assert queries() == first == 8  # the prices are read before each of the figures


def test_only_the_current_day_is_read_again():
    now = datetime.now(UTC)
    first, last = figures.today() - timedelta(days=29), figures.today()

    def read() -> list[object]:
        found = (
            figures.daily_stats(first, last),
            figures.monthly_stats(last, last),
            figures.top_shares("patient", first, last),
        )
        return [found[0][-1].characters, found[1][0].characters, [share.characters for share in found[2]]]

    record_usage(at=now)
    record_usage(at=now - timedelta(days=3), patient_id=BOB)
    assert read()[2] == [10, 10]
    before = read()
    with CaptureQueriesContext(connection) as captured:
        record_usage(at=now, patient_id=BOB)
        asked = len(captured)
        today, month, shares = read()
    assert today == before[0] + 10
    assert month == before[1] + 10
    assert shares == [20, 10]
    reading = [query["sql"] for query in captured][asked:]
    reading = [sql for sql in reading if "usage_price" not in sql]
    assert len(reading) == 3
    assert not any(str(first) in sql for sql in reading)


def test_past_months_are_cached():
    long_ago = NOON - timedelta(days=60)
    record_usage(at=long_ago)
    assert [one.characters for one in figures.monthly_stats(long_ago.date(), long_ago.date())] == [10]
    record_usage(at=long_ago)
    with CaptureQueriesContext(connection) as captured:
        assert [one.characters for one in figures.monthly_stats(long_ago.date(), long_ago.date())] == [10]
        of_alice = figures.monthly_stats(long_ago.date(), long_ago.date(), patient_id=ALICE)
        assert [one.characters for one in of_alice] == [20]
    assert len([query for query in captured if "usage_price" not in query["sql"]]) == 1
    now = figures.today()
    record_usage(at=datetime.now(UTC))
    assert figures.monthly_stats(now, now)[0].characters == 10
    record_usage(at=datetime.now(UTC))
    assert figures.monthly_stats(now, now)[0].characters == 20
