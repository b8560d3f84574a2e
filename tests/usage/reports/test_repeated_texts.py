"""The figures of repeated texts: how often they were paid for, what they have cost, and what the cache has saved."""

import uuid
from datetime import date
from decimal import Decimal

import pytest

from tests.usage.test_models import create_event
from usage.ledger.text_digests import recent_events
from usage.models import Price, UsageEvent
from usage.reports.repeated_texts import cache_use, most_paid

pytestmark = pytest.mark.django_db

ALICE, BOB = uuid.uuid4(), uuid.uuid4()


def pay(digest: str, times: int, patient: uuid.UUID | None = ALICE, **fields: object) -> None:
    for _ in range(times):
        create_event(text_digest=digest, patient=patient, **{"credits": 5, **fields})


def test_texts_are_ordered_by_what_they_cost():
    Price.objects.create(model="", valid_from=date(2020, 1, 1), per_1000_credits=Decimal("0.3"))
    pay("often", 3)
    pay("often", 1, BOB, kind="retry")
    pay("long", 3, characters=100, requested_characters=100)
    long, often = most_paid(recent_events())
    assert (long.digest, long.times, long.patients, long.length, long.characters) == ("long", 3, 1, 100, 300)
    assert (often.digest, often.times, often.patients, often.length, often.characters) == ("often", 4, 2, 10, 40)
    assert often.cost.amount == Decimal("0.006")
    event = UsageEvent.objects.get(pk=often.event_id)
    assert (event.text_digest, event.patient) == ("often", often.patient_id)


def test_what_was_not_paid_for_by_a_patient_does_not_count():
    pay("cached", 5, kind="cache", characters=0, saved_characters=10)
    pay("offline", 5, kind="offline", characters=0, saved_characters=10)
    pay("failed", 5, outcome="failed", characters=0)
    pay("nobody", 5, patient=None)
    pay("rare", 2)
    pay("", 5)
    assert most_paid(recent_events()) == []


def test_known_texts_are_left_out():
    pay("phrase", 3)
    pay("other", 3)
    assert [text.digest for text in most_paid(recent_events(), ["phrase"])] == ["other"]


def test_the_number_of_queries_does_not_depend_on_the_number_of_texts(django_assert_num_queries):
    for number in range(20):
        pay(f"text {number}", 3)
    with django_assert_num_queries(4):  # with the prices
        assert len(most_paid(recent_events())) == 20


def test_the_use_of_the_cache(django_assert_num_queries):
    pay("half", 2)
    pay("half", 2, kind="cache", characters=0, saved_characters=10)
    pay("never", 1)
    with django_assert_num_queries(1):
        used = cache_use(recent_events(), ["half", "never", "unspoken"])
    assert set(used) == {"half", "never"}
    assert (used["half"].hits, used["half"].paid, used["half"].saved_characters) == (2, 2, 20)
    assert (used["half"].hit_rate, used["never"].hit_rate) == (0.5, 0.0)
