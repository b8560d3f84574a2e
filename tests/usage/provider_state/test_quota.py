"""The quota's transitions: each happens once, nonsense changes nothing, and a quota that is refused again and again is
neither asked for at every poll nor told of at every try.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import responses
from django.utils import timezone
from pytest_django import Settings

from tests.usage.provider_state.test_circuit import ago, at_once, given, row
from usage.models import Incident
from usage.provider_state import circuit, quota
from voicecare.providers.elevenlabs.responses import Subscription

pytestmark = pytest.mark.django_db

MONTH_S = 30 * 24 * 3600
SUBSCRIPTION = "https://provider.test/v1/user/subscription"


@pytest.fixture(autouse=True)
def provider_address(settings: Settings) -> None:
    settings.QUOTA_POLL_S = 15.0
    settings.ELEVENLABS_BASE_URL = "https://provider.test"


@pytest.fixture
def account() -> Any:
    with responses.RequestsMock() as mock:
        yield mock


def reply(used: object = 0, limit: object = 1000, **fields: object) -> dict[str, object]:
    return {"character_count": used, "character_limit": limit, **fields}


def figures(used: int, limit: int = 1000, **fields: object) -> Subscription:
    return Subscription.from_json(reply(used, limit, **fields))


def later(seconds: float) -> None:
    """Time passes: for the tests all that was written was written so much earlier."""
    now = row()
    columns = ("quota_changed_at", "next_poll_at", "polled_at", "quota_resets_at")
    given(**{c: getattr(now, c) - timedelta(seconds=seconds) for c in columns if getattr(now, c) is not None})


def incidents() -> tuple[int, int]:
    """How many were opened, and how many of them are still open."""
    opened = Incident.objects.filter(kind="quota")
    return opened.count(), opened.filter(resolved_at=None).count()


def until(at: datetime | None) -> int:
    assert at is not None
    return round((at - timezone.now()).total_seconds())


# Spent


def test_a_refusal_spends_it_and_opens_one_incident():
    quota.mark_exhausted(40, "quota_exceeded, HTTP 401, request r1")
    quota.mark_exhausted(50, "quota_exceeded, HTTP 401, request r2")
    assert (row().quota, row().quota_needed, row().quota_refusals) == ("spent", 40, 0)
    assert until(row().next_poll_at) == 15
    assert Incident.objects.get().detail == "quota_exceeded, HTTP 401, request r1"


def test_a_subscription_with_nothing_left_spends_it():
    quota.apply_subscription(figures(1000))
    assert (row().quota, incidents()) == ("spent", (1, 1))


@pytest.mark.parametrize(
    "subscription",
    [
        figures(999),
        figures(1000, max_credit_limit_extension=1),
        figures(5000, max_credit_limit_extension="unlimited"),
        figures(0, 0, max_credit_limit_extension="unlimited"),
    ],
)
def test_a_subscription_with_anything_left_does_not(subscription: Subscription):
    quota.apply_subscription(subscription)
    assert (row().quota, incidents()) == ("available", (0, 0))


def test_what_the_subscription_shows_is_kept():
    resets = int(timezone.now().timestamp()) + MONTH_S
    quota.apply_subscription(figures(100, 1000, max_credit_limit_extension=500, next_character_count_reset_unix=resets))
    kept = row()
    assert (kept.quota_limit, kept.quota_used, kept.quota_remaining) == (1500, 100, 1400)
    assert kept.quota_resets_at == datetime.fromtimestamp(resets, UTC)
    assert until(kept.polled_at) == 0


# Back


def test_it_is_back_when_the_subscription_shows_enough_for_what_was_refused():
    quota.mark_exhausted(40, "")
    quota.apply_subscription(figures(1000))
    later(15)
    quota.apply_subscription(figures(961))
    assert row().quota == "spent"
    quota.apply_subscription(figures(960))
    assert (row().quota, incidents()) == ("available", (1, 0))


def test_a_refusal_of_nothing_is_answered_by_one_credit():
    quota.apply_subscription(figures(1000))
    quota.apply_subscription(figures(1000))
    assert row().quota == "spent"
    quota.apply_subscription(figures(999))
    assert row().quota == "available"


def test_a_reading_from_before_the_refusal_does_not_undo_it():
    quota.apply_subscription(figures(700))
    quota.mark_exhausted(200, "")
    quota.apply_subscription(figures(700))
    assert row().quota == "spent"


def test_more_credits_than_before_are_believed_at_once():
    quota.apply_subscription(figures(900))
    quota.mark_exhausted(200, "")
    quota.apply_subscription(figures(900, 2000))
    assert (row().quota, incidents()) == ("available", (1, 0))


def test_it_is_back_at_the_reset_time_though_nobody_can_ask(account: responses.RequestsMock):
    account.get(SUBSCRIPTION, status=500)
    given(quota_resets_at=ago(-10))
    quota.mark_exhausted(40, "")
    assert until(row().next_poll_at) == 10
    later(9)
    given(next_poll_at=None)
    quota.poll()
    assert row().quota == "spent"
    later(2)
    quota.poll()
    assert (row().quota, incidents()) == ("available", (1, 0))


def test_a_reset_that_has_come_once_does_not_bring_it_back_twice():
    given(quota_resets_at=ago(1))
    quota.mark_exhausted(40, "")
    quota.subscription_unavailable()
    assert row().quota == "spent"


def test_a_reset_time_that_lies_ahead_is_waited_for():
    given(quota_resets_at=ago(-MONTH_S))
    quota.mark_exhausted(40, "")
    later(3600)
    quota.subscription_unavailable(refused=True)
    assert row().quota == "spent"


@pytest.mark.parametrize(("refused", "waits_s"), [(True, 15), (False, 900)])
def test_without_figures_and_reset_time_it_is_tried_again_after_a_while(refused: bool, waits_s: int):
    quota.mark_exhausted(40, "")
    later(waits_s - 1)
    quota.subscription_unavailable(refused=refused)
    assert row().quota == "spent"
    later(1)
    quota.subscription_unavailable(refused=refused)
    assert row().quota == "available"


# Nonsense

AHEAD = 1_000_000  # seconds; the resets are relative to now


@pytest.mark.parametrize(
    "body",
    [
        reply(-1),
        reply(True),
        reply(0, None),
        reply(0, "1000"),
        reply(0.5),
        reply(10**13),
        reply(0, 10**15),
        reply(0, max_credit_limit_extension=2**62),
        reply(0, max_credit_limit_extension=-5),
        reply(0, max_credit_limit_extension=True),
        reply(0, next_character_count_reset_unix=True),
        reply(0, next_character_count_reset_unix=0),
        reply(0, next_character_count_reset_unix=lambda now: now - 60),
        reply(0, next_character_count_reset_unix=lambda now: (now + AHEAD) * 1000),
        reply(0, next_character_count_reset_unix=2**62),
        reply(0, next_character_count_reset_unix="tomorrow"),
        {},
        [],
        None,
    ],
)
@pytest.mark.parametrize("state", ["available", "spent"])
def test_a_reply_with_nonsense_changes_nothing(account: responses.RequestsMock, body: Any, state: str):
    if isinstance(body, dict) and callable(resets := body.get("next_character_count_reset_unix")):
        body = {**body, "next_character_count_reset_unix": resets(int(timezone.now().timestamp()))}
    account.get(SUBSCRIPTION, json=body)
    given(quota=state, quota_changed_at=ago(30), quota_limit=1000, quota_used=1000)
    before = row()
    quota.poll()
    after = row()
    columns = (
        "quota",
        "quota_changed_at",
        "quota_limit",
        "quota_used",
        "quota_resets_at",
        "quota_refusals",
        "polled_at",
    )
    assert [getattr(after, c) for c in columns] == [getattr(before, c) for c in columns]
    assert until(after.next_poll_at) == (15 if state == "spent" else 50)
    assert len(account.calls) == 1


# Refused though there is enough


def refused_again(times: int) -> None:
    """As often it seemed to be back and was refused at once."""
    for _ in range(times):
        later(quota.backoff(row().quota_refusals).total_seconds())
        quota.apply_subscription(figures(0))
        assert row().quota == "available"
        quota.mark_exhausted(10, "")


def test_a_quota_that_the_subscription_does_not_show_is_told_of_twice_at_most():
    quota.mark_exhausted(10, "")
    refused_again(9)
    assert (row().quota, row().quota_refusals, incidents()) == ("spent", 9, (2, 1))


def test_the_pause_before_it_is_believed_doubles_to_a_quarter_of_an_hour(settings: Settings):
    assert [quota.backoff(n).total_seconds() for n in range(8)] == [15, 30, 60, 120, 240, 480, 900, 900]
    assert quota.backoff(10**6) == timedelta(minutes=15)
    quota.mark_exhausted(10, "")
    refused_again(2)
    later(59)
    quota.apply_subscription(figures(0))
    assert row().quota == "spent"
    later(1)
    quota.apply_subscription(figures(0))
    assert row().quota == "available"


def test_nobody_is_kept_waiting_a_second_time():
    quota.mark_exhausted(10, "")
    assert circuit.read_status().hold_s > 59
    refused_again(1)
    assert circuit.read_status().hold_s == 0


def test_what_lasts_a_quarter_of_an_hour_is_really_back():
    quota.mark_exhausted(10, "")
    refused_again(1)
    later(30)
    quota.apply_subscription(figures(0))
    quota.resolve_stable_incident()
    assert incidents() == (2, 1)
    later(15 * 60)
    given(next_poll_at=ago(-9))
    quota.poll()  # though nothing is asked
    assert (row().quota_refusals, incidents()) == (0, (2, 0))


def test_a_new_period_ends_the_row_of_refusals():
    quota.mark_exhausted(10, "")
    refused_again(3)
    quota.apply_subscription(figures(700))
    quota.apply_subscription(figures(0))
    assert (row().quota, row().quota_refusals, incidents()) == ("available", 0, (2, 0))


def test_credits_that_were_bought_and_used_up_again_are_an_incident_of_their_own():
    quota.mark_exhausted(100, "")
    later(20)
    quota.apply_subscription(figures(800))
    later(60)
    quota.apply_subscription(figures(950))
    quota.mark_exhausted(100, "")
    assert (row().quota_refusals, incidents()) == (0, (2, 1))


def test_a_refusal_long_after_it_came_back_is_the_first_of_its_kind():
    quota.mark_exhausted(10, "")
    later(20)
    quota.apply_subscription(figures(0))
    later(15 * 60)
    quota.mark_exhausted(10, "")
    assert (row().quota_refusals, incidents()) == (0, (2, 1))


# Polling


def test_a_poll_that_is_not_due_asks_nobody(account: responses.RequestsMock):
    quota.mark_exhausted(10, "")
    quota.poll()
    assert len(account.calls) == 0


@pytest.mark.parametrize(
    ("status", "code", "back"), [(401, "missing_permissions", True), (404, "gone", True), (503, "", False)]
)
def test_a_key_that_may_not_read_the_subscription_tries_again(
    account: responses.RequestsMock, status: int, code: str, back: bool
):
    account.get(SUBSCRIPTION, status=status, json={"detail": {"status": code, "message": ""}})
    quota.mark_exhausted(10, "")
    later(15)
    quota.poll()
    assert (row().quota == "available") is back


def test_a_poll_brings_it_back(account: responses.RequestsMock):
    account.get(SUBSCRIPTION, json=reply(0))
    quota.mark_exhausted(10, "")
    later(15)
    quota.poll()
    assert (row().quota, row().quota_used) == ("available", 0)


def test_whatever_goes_wrong_a_poll_raises_nothing(settings: Settings):
    settings.ELEVENLABS_API_KEY = "no\nheader"
    quota.poll()


def test_beats_each_minute_poll_each_minute(account: responses.RequestsMock):
    account.get(SUBSCRIPTION, json=reply(0))
    for _ in range(3):
        quota.poll()
        quota.poll()
        later(59)
    assert len(account.calls) == 3


@pytest.mark.django_db(transaction=True)
def test_of_many_processes_one_spends_one_polls_and_one_brings_back():
    at_once(lambda: quota.mark_exhausted(10, ""))
    assert incidents() == (1, 1)
    later(15)
    assert sum(at_once(quota.claim_poll)) == 1
    at_once(lambda: quota.apply_subscription(figures(0)))
    assert (row().quota, incidents()) == ("available", (1, 0))


@pytest.mark.django_db(transaction=True)
def test_it_is_not_brought_back_by_who_read_the_row_before_it_was_spent_anew():
    quota.mark_exhausted(10, "")
    later(15)
    stale, now = quota._read_row()
    quota.apply_subscription(figures(0))
    quota.mark_exhausted(10, "")
    quota._set_available(stale, now)
    assert (row().quota, row().quota_refusals) == ("spent", 1)


# Before its time


def test_where_an_answer_hints_at_it_it_is_read_before_its_time(account: Any):
    account.get(SUBSCRIPTION, json=reply(800))
    given(next_poll_at=timezone.now() + timedelta(seconds=50), polled_at=ago(16))
    quota.poll_now()
    assert row().quota_used == 800


def test_what_was_read_just_now_is_not_read_again(account: Any):
    given(next_poll_at=timezone.now() + timedelta(seconds=50), polled_at=ago(10))
    quota.poll_now()
    assert row().quota_used is None


def test_a_spent_quota_keeps_its_own_turns(account: Any):
    given(quota="spent", next_poll_at=timezone.now() + timedelta(seconds=10), polled_at=ago(60))
    quota.poll_now()
    assert row().quota == "spent"
