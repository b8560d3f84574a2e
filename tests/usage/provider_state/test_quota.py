"""The quota's transitions: each happens once, and an implausible subscription changes nothing.

After repeated refusals, the quota is tried less often, and alerts are not repeated.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import responses
from django.utils import timezone
from pytest_django import Settings

from tests.usage.provider_state.test_circuit import row, run_concurrently, seconds_ago, set_state
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


def let_seconds_pass(seconds: float) -> None:
    """Move all saved times into the past."""
    now = row()
    columns = ("quota_changed_at", "next_poll_at", "polled_at", "quota_resets_at")
    set_state(**{c: getattr(now, c) - timedelta(seconds=seconds) for c in columns if getattr(now, c) is not None})


def incident_counts() -> tuple[int, int]:
    """Return the number of incidents, and the number of open ones."""
    opened = Incident.objects.filter(kind="quota")
    return opened.count(), opened.filter(resolved_at=None).count()


def seconds_until(at: datetime | None) -> int:
    assert at is not None
    return round((at - timezone.now()).total_seconds())


# Exhausted


def test_a_refusal_exhausts_the_quota_and_opens_one_incident():
    quota.mark_exhausted(40, "quota_exceeded, HTTP 401, request r1")
    quota.mark_exhausted(50, "quota_exceeded, HTTP 401, request r2")
    assert (row().quota, row().quota_needed, row().quota_refusals) == ("spent", 40, 0)
    assert seconds_until(row().next_poll_at) == 15
    assert Incident.objects.get().detail == "quota_exceeded, HTTP 401, request r1"


def test_a_subscription_without_credits_exhausts_the_quota():
    quota.apply_subscription(figures(1000))
    assert (row().quota, incident_counts()) == ("spent", (1, 1))


@pytest.mark.parametrize(
    "subscription",
    [
        figures(999),
        figures(1000, max_credit_limit_extension=1),
        figures(5000, max_credit_limit_extension="unlimited"),
        figures(0, 0, max_credit_limit_extension="unlimited"),
    ],
)
def test_a_subscription_with_credits_does_not(subscription: Subscription):
    quota.apply_subscription(subscription)
    assert (row().quota, incident_counts()) == ("available", (0, 0))


def test_the_subscriptions_figures_are_saved():
    resets = int(timezone.now().timestamp()) + MONTH_S
    quota.apply_subscription(figures(100, 1000, max_credit_limit_extension=500, next_character_count_reset_unix=resets))
    kept = row()
    assert (kept.quota_limit, kept.quota_used, kept.quota_remaining) == (1500, 100, 1400)
    assert kept.quota_resets_at == datetime.fromtimestamp(resets, UTC)
    assert seconds_until(kept.polled_at) == 0


# Restored


def test_enough_credits_for_the_refused_request_restore_the_quota():
    quota.mark_exhausted(40, "")
    quota.apply_subscription(figures(1000))
    let_seconds_pass(15)
    quota.apply_subscription(figures(961))
    assert row().quota == "spent"
    quota.apply_subscription(figures(960))
    assert (row().quota, incident_counts()) == ("available", (1, 0))


def test_one_credit_restores_a_quota_that_no_request_exceeded():
    quota.apply_subscription(figures(1000))
    quota.apply_subscription(figures(1000))
    assert row().quota == "spent"
    quota.apply_subscription(figures(999))
    assert row().quota == "available"


def test_a_reading_from_before_the_refusal_does_not_restore_the_quota():
    quota.apply_subscription(figures(700))
    quota.mark_exhausted(200, "")
    quota.apply_subscription(figures(700))
    assert row().quota == "spent"


def test_more_credits_than_before_restore_the_quota_immediately():
    quota.apply_subscription(figures(900))
    quota.mark_exhausted(200, "")
    quota.apply_subscription(figures(900, 2000))
    assert (row().quota, incident_counts()) == ("available", (1, 0))


def test_the_reset_time_restores_the_quota_without_a_subscription(account: responses.RequestsMock):
    account.get(SUBSCRIPTION, status=500)
    set_state(quota_resets_at=seconds_ago(-10))
    quota.mark_exhausted(40, "")
    assert seconds_until(row().next_poll_at) == 10
    let_seconds_pass(9)
    set_state(next_poll_at=None)
    quota.poll()
    assert row().quota == "spent"
    let_seconds_pass(2)
    quota.poll()
    assert (row().quota, incident_counts()) == ("available", (1, 0))


def test_a_past_reset_does_not_restore_the_quota_again():
    set_state(quota_resets_at=seconds_ago(1))
    quota.mark_exhausted(40, "")
    quota.subscription_unavailable()
    assert row().quota == "spent"


def test_a_future_reset_is_awaited():
    set_state(quota_resets_at=seconds_ago(-MONTH_S))
    quota.mark_exhausted(40, "")
    let_seconds_pass(3600)
    quota.subscription_unavailable(refused=True)
    assert row().quota == "spent"


@pytest.mark.parametrize(("refused", "waits_s"), [(True, 15), (False, 900)])
def test_without_figures_and_reset_the_quota_is_tried_after_a_delay(refused: bool, waits_s: int):
    quota.mark_exhausted(40, "")
    let_seconds_pass(waits_s - 1)
    quota.subscription_unavailable(refused=refused)
    assert row().quota == "spent"
    let_seconds_pass(1)
    quota.subscription_unavailable(refused=refused)
    assert row().quota == "available"


# Implausible subscriptions

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
def test_an_implausible_subscription_changes_nothing(account: responses.RequestsMock, body: Any, state: str):
    if isinstance(body, dict) and callable(resets := body.get("next_character_count_reset_unix")):
        body = {**body, "next_character_count_reset_unix": resets(int(timezone.now().timestamp()))}
    account.get(SUBSCRIPTION, json=body)
    set_state(quota=state, quota_changed_at=seconds_ago(30), quota_limit=1000, quota_used=1000)
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
    assert seconds_until(after.next_poll_at) == (15 if state == "spent" else 50)
    assert len(account.calls) == 1


# Refused although the subscription shows enough credits


def restore_and_refuse(times: int) -> None:
    """Let the quota appear restored and be refused again, several times."""
    for _ in range(times):
        let_seconds_pass(quota.backoff(row().quota_refusals).total_seconds())
        quota.apply_subscription(figures(0))
        assert row().quota == "available"
        quota.mark_exhausted(10, "")


def test_repeated_refusals_open_at_most_two_incidents():
    quota.mark_exhausted(10, "")
    restore_and_refuse(9)
    assert (row().quota, row().quota_refusals, incident_counts()) == ("spent", 9, (2, 1))


def test_the_backoff_doubles_up_to_fifteen_minutes(settings: Settings):
    assert [quota.backoff(n).total_seconds() for n in range(8)] == [15, 30, 60, 120, 240, 480, 900, 900]
    assert quota.backoff(10**6) == timedelta(minutes=15)
    quota.mark_exhausted(10, "")
    restore_and_refuse(2)
    let_seconds_pass(59)
    quota.apply_subscription(figures(0))
    assert row().quota == "spent"
    let_seconds_pass(1)
    quota.apply_subscription(figures(0))
    assert row().quota == "available"


def test_live_speech_is_not_held_a_second_time():
    quota.mark_exhausted(10, "")
    assert circuit.read_status().hold_s > 59
    restore_and_refuse(1)
    assert circuit.read_status().hold_s == 0


def test_a_quota_that_lasts_fifteen_minutes_is_stable():
    quota.mark_exhausted(10, "")
    restore_and_refuse(1)
    let_seconds_pass(30)
    quota.apply_subscription(figures(0))
    quota.resolve_stable_incident()
    assert incident_counts() == (2, 1)
    let_seconds_pass(15 * 60)
    set_state(next_poll_at=seconds_ago(-9))
    quota.poll()  # not due, so no request is sent
    assert (row().quota_refusals, incident_counts()) == (0, (2, 0))


def test_a_new_period_resets_the_refusals():
    quota.mark_exhausted(10, "")
    restore_and_refuse(3)
    quota.apply_subscription(figures(700))
    quota.apply_subscription(figures(0))
    assert (row().quota, row().quota_refusals, incident_counts()) == ("available", 0, (2, 0))


def test_bought_credits_that_are_used_up_are_a_new_incident():
    quota.mark_exhausted(100, "")
    let_seconds_pass(20)
    quota.apply_subscription(figures(800))
    let_seconds_pass(60)
    quota.apply_subscription(figures(950))
    quota.mark_exhausted(100, "")
    assert (row().quota_refusals, incident_counts()) == (0, (2, 1))


def test_a_refusal_long_after_the_recovery_is_a_new_outage():
    quota.mark_exhausted(10, "")
    let_seconds_pass(20)
    quota.apply_subscription(figures(0))
    let_seconds_pass(15 * 60)
    quota.mark_exhausted(10, "")
    assert (row().quota_refusals, incident_counts()) == (0, (2, 1))


# Polling


def test_a_poll_that_is_not_due_sends_no_request(account: responses.RequestsMock):
    quota.mark_exhausted(10, "")
    quota.poll()
    assert len(account.calls) == 0


@pytest.mark.parametrize(
    ("status", "code", "back"), [(401, "missing_permissions", True), (404, "gone", True), (503, "", False)]
)
def test_a_key_without_permission_tries_the_quota_again(
    account: responses.RequestsMock, status: int, code: str, back: bool
):
    account.get(SUBSCRIPTION, status=status, json={"detail": {"status": code, "message": ""}})
    quota.mark_exhausted(10, "")
    let_seconds_pass(15)
    quota.poll()
    assert (row().quota == "available") is back


def test_a_poll_restores_the_quota(account: responses.RequestsMock):
    account.get(SUBSCRIPTION, json=reply(0))
    quota.mark_exhausted(10, "")
    let_seconds_pass(15)
    quota.poll()
    assert (row().quota, row().quota_used) == ("available", 0)


def test_a_poll_never_raises(settings: Settings):
    settings.ELEVENLABS_API_KEY = "no\nheader"
    quota.poll()


def test_a_run_each_minute_polls_each_minute(account: responses.RequestsMock):
    account.get(SUBSCRIPTION, json=reply(0))
    for _ in range(3):
        quota.poll()
        quota.poll()
        let_seconds_pass(59)
    assert len(account.calls) == 3


@pytest.mark.django_db(transaction=True)
def test_one_of_several_processes_exhausts_polls_and_restores():
    run_concurrently(lambda: quota.mark_exhausted(10, ""))
    assert incident_counts() == (1, 1)
    let_seconds_pass(15)
    assert sum(run_concurrently(quota.claim_poll)) == 1
    run_concurrently(lambda: quota.apply_subscription(figures(0)))
    assert (row().quota, incident_counts()) == ("available", (1, 0))


@pytest.mark.django_db(transaction=True)
def test_a_stale_row_does_not_restore_the_quota():
    quota.mark_exhausted(10, "")
    let_seconds_pass(15)
    stale, now = quota._read_row()
    quota.apply_subscription(figures(0))
    quota.mark_exhausted(10, "")
    quota._set_available(stale, now)
    assert (row().quota, row().quota_refusals) == ("spent", 1)


# Before it is due


def test_the_subscription_can_be_read_before_it_is_due(account: Any):
    account.get(SUBSCRIPTION, json=reply(800))
    set_state(next_poll_at=timezone.now() + timedelta(seconds=50), polled_at=seconds_ago(16))
    quota.poll_now()
    assert row().quota_used == 800


def test_a_recent_subscription_is_not_read_again(account: Any):
    set_state(next_poll_at=timezone.now() + timedelta(seconds=50), polled_at=seconds_ago(10))
    quota.poll_now()
    assert row().quota_used is None


def test_an_exhausted_quota_keeps_its_schedule(account: Any):
    set_state(quota="spent", next_poll_at=timezone.now() + timedelta(seconds=10), polled_at=seconds_ago(60))
    quota.poll_now()
    assert row().quota == "spent"
