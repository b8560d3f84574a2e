"""Reads the provider's single requests of a day: its history, or its list of requests where there is no history."""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from usage.ledger import events as ledger
from usage.reconciliation import provider_usage
from usage.reconciliation.day import DayReconciliation, History, Removed, RequestCall, answered_requests
from usage.reconciliation.matching import match_key
from usage.reconciliation.provider_usage import ProviderDataUnavailable

MIN_COVERAGE = 0.99  # part of our answered requests that a trustworthy history must contain


def read_requests(look: DayReconciliation, until: datetime, answered_by: datetime) -> None:
    """Set `history` and `request_call` of `look`, if the provider's requests contain our own.

    They are those from the start of the day to `until`. Ours that started before `answered_by` must be among them. An
    empty history is no proof: the account may keep none. Then the list of requests decides, if the key may read it.
    """
    start = look.day_range.start
    readers: dict[RequestCall, tuple[str, Callable[[], History]]] = {
        RequestCall.HISTORY: ("The provider's history", lambda: provider_usage.history(look.client, start, until)),
        RequestCall.REQUESTS: (
            "The provider's list of requests",
            lambda: provider_usage.request_list(look.client, start, until),
        ),
    }
    for call, (what, read) in readers.items():
        found = look.read(what, partial(_verified, look, read, min(until, answered_by)))
        if found is not None:
            look.history, look.request_call = found, call
        if found or (found is not None and not _has_unknown(look)):
            return


def _has_unknown(look: DayReconciliation) -> bool:
    return look.day_range.events().filter(outcome=ledger.Outcome.UNKNOWN).exists()


def _verified(look: DayReconciliation, read: Callable[[], History], answered_by: datetime) -> History:
    """Return the requests that `read` returns, if they contain our own.

    Raises ProviderDataUnavailable if they cannot be read, or lack too many completed requests that started before
    `answered_by` (MIN_COVERAGE). Such a history was deleted, belongs to another workspace, or identifies requests in
    another way. It must not prove that an unknown attempt was not billed. Requests that this server deletes from the
    history are not expected there.
    """
    removed, found = Removed.since(look.day_range), read()
    found_ids = {match_key(item) for item in found}
    our_ids = [
        request.request_id
        for request in answered_requests(look.day_range)
        if request.outcome == ledger.Outcome.COMPLETED
        and look.day_range.start <= request.started_at < answered_by
        and not removed.has(request)
    ]
    missing = sum(request_id not in found_ids for request_id in our_ids)
    if missing > (1 - MIN_COVERAGE) * len(our_ids):
        raise ProviderDataUnavailable(f"it lacks {missing:,} of {len(our_ids):,} requests that the provider answered")
    return found
