"""Reads the provider's own usage figures: history, statistics and subscription. Any of them may be unavailable.

Every failure raises `ProviderDataUnavailable` with a reason for administrators. So does an implausible figure, because
a wrong figure is worse than none.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from typing import TypeVar

from django.conf import settings

from usage.provider_state import quota
from voicecare.providers.elevenlabs import credentials
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.responses import HistoryItem, Subscription
from voicecare.providers.errors import AuthorizationError, BadRequest, ProviderError

MARGIN_S = 300  # read beyond both ends of a day, because clocks differ and requests take time
MARGIN_MS = MARGIN_S * 1000
PAGE_SIZE = 1000  # of the list of requests
MAX_ITEMS = 100_000  # items of one day; several hundred patients who talk all day
MAX_READ_S = 150.0  # a task has ten minutes and other requests to make
MAX_UNIX = 10**11  # a higher number cannot be seconds, it is milliseconds
MAX_CONSECUTIVE_OLDER = 1000  # one page; items come newest first, so no newer item follows
MAX_DAILY_USAGE = 10**12
HOUR_MS = 3_600_000
METRICS = {"characters": "tts_characters", "credits": "credits"}

T = TypeVar("T")


class ProviderDataUnavailable(Exception):
    """A figure of the provider is not available. The message gives the reason for administrators."""


class Refused(ProviderDataUnavailable):
    """The account, its plan or the API key does not have the call, or hours are missing. Another call may do."""


def account_client() -> closing[AccountClient]:
    """Return a client for the provider's account. It is closed at the end of the `with` block."""
    return closing(AccountClient(settings.ELEVENLABS_BASE_URL, credentials.api_key()))


def history(client: AccountClient, begins: datetime, ends: datetime) -> list[HistoryItem]:
    """Return all items of the provider's history between two times, with a margin of MARGIN_S at both ends.

    Raises ProviderDataUnavailable if the history was not read completely.
    """
    if settings.ELEVENLABS_ZERO_RETENTION:
        raise ProviderDataUnavailable("zero retention is on, so there is no history")
    return wrap_errors(lambda: list(items_between(client, begins, ends)))


def request_list(client: AccountClient, begins: datetime, ends: datetime) -> list[HistoryItem]:
    """Return the speech requests of the provider's list between two times, with a margin of MARGIN_S at both ends.

    The list also has requests that the history leaves out. Raises ProviderDataUnavailable if it was not read
    completely.
    """
    return wrap_errors(lambda: list(_listed_requests(client, _ms(begins) - MARGIN_MS, _ms(ends) + MARGIN_MS).values()))


def _listed_requests(client: AccountClient, start: int, end: int) -> dict[str, HistoryItem]:
    """Read page by page. Each page starts with the time of the last request of the page before."""
    until, items = time.monotonic() + MAX_READ_S, dict[str, HistoryItem]()
    while True:
        page = client.request_list(start, end - 1, limit=PAGE_SIZE)
        found = [(at, item) for at, item in page.speech_requests() if start <= at < end]
        items |= {item.item_id: item for _, item in found}
        if len(page.rows) < PAGE_SIZE:
            return items
        next_start = max(page.times(), default=start) - 1  # whether `start_time` is included is not documented
        if next_start <= start:
            raise ProviderDataUnavailable("its pages do not continue")
        if len(items) > MAX_ITEMS or time.monotonic() > until:
            raise ProviderDataUnavailable("it is too long")
        start = next_start


def items_between(client: AccountClient, begins: datetime, ends: datetime) -> Iterator[HistoryItem]:
    """Yield the items of the history between two times, with a margin of MARGIN_S at both ends.

    Raises ProviderError, and ProviderDataUnavailable if the history is too long or has wrong times.
    """
    after, before = int(begins.timestamp()) - MARGIN_S, int(ends.timestamp()) + MARGIN_S
    return _items_within(client.history(after, before), after, before)


def subscription(client: AccountClient, now: datetime) -> Subscription:
    """Read the subscription. Raises ProviderDataUnavailable if it cannot be read or its numbers are not plausible."""
    found = wrap_errors(client.subscription)
    if not quota.is_plausible(found, now):
        raise ProviderDataUnavailable("its numbers are not plausible")
    return found


def _items_within(items: Iterator[HistoryItem], after: int, before: int) -> Iterator[HistoryItem]:
    """Yield the items that were created between two Unix times, each item once. Items without a time are included.

    The provider may ignore the filter of the request, and its pages may overlap. Raises ProviderDataUnavailable if
    there are too many items or their times are not in seconds.
    """
    until, seen, older = time.monotonic() + MAX_READ_S, set[str](), 0
    for number, item in enumerate(items):
        if number == MAX_ITEMS or time.monotonic() > until:
            raise ProviderDataUnavailable("it is too long")
        if item.created_at_unix is not None and item.created_at_unix > MAX_UNIX:
            raise ProviderDataUnavailable("its times are not in seconds")
        older = older + 1 if item.created_at_unix is not None and item.created_at_unix < after else 0
        if older == MAX_CONSECUTIVE_OLDER:
            return
        if item.item_id not in seen and (item.created_at_unix is None or after <= item.created_at_unix < before):
            yield item
        seen.add(item.item_id)


def usage_total(client: AccountClient, unit: str, begins: datetime, ends: datetime) -> int:
    """Return the total between two times from the provider's statistics, which have one number for each hour.

    `unit` is a key of METRICS. If `begins` is within an hour of the statistics, they contain only the part of that hour
    after `begins`. Raises ProviderDataUnavailable.
    """
    start, end = _ms(begins), _ms(ends)
    stats = wrap_errors(lambda: client.character_stats(start, end - 1, metric=METRICS[unit]))
    if "All" in stats.usage:
        series = stats.usage["All"]
    else:  # broken down by voice, although that was not requested
        series = tuple(map(sum, zip(*stats.usage.values(), strict=True))) or (0.0,) * len(stats.times_ms)
    hours = [index for index, at in enumerate(stats.times_ms) if start - HOUR_MS < at < end]
    total = sum(series[index] for index in hours)
    if not hours or total > MAX_DAILY_USAGE:
        raise ProviderDataUnavailable("they are missing, or for another time")
    return round(total)


def wrap_errors(call: Callable[[], T]) -> T:
    try:
        return call()
    except (AuthorizationError, BadRequest) as error:
        raise Refused(f"the API key may not read it ({error.code})") from error
    except ProviderError as error:
        raise ProviderDataUnavailable(f"the provider did not answer as expected ({error.code})") from error


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
