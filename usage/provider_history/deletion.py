"""Durable deletions of our requests from the provider's history.

A row is written in the transaction that erases a patient or withdraws a voice clone. Workers delete in passes. A pass
of a patient reads the history around the requests in the ledger and deletes the items with their request ids. A pass of
a voice deletes all items of this voice. Nothing else is deleted, also if the provider ignores a filter. A row is done
when a pass after `covers_until` has found nothing. So an attempt that was killed is continued, and a request that the
history has shown late is found. With zero retention the first pass finds nothing.
"""

import random
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice, pairwise, takewhile

import structlog
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from usage.alerts import incidents
from usage.models import HistoryDeletion, UsageEvent
from usage.reconciliation import provider_usage
from usage.reconciliation.matching import match_key
from usage.reconciliation.provider_usage import ProviderDataUnavailable
from voicecare.core.batches import process_each, run_steps
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.responses import HistoryItem
from voicecare.providers.errors import AuthorizationError, ProviderError

SETTLE_TIME = timedelta(hours=1)  # until then, a last request can be recorded, or appear in the history
RUN_TIME_S = 60.0  # of one attempt; the next one continues
LEASE = timedelta(minutes=10)  # longer than an attempt can take
RETRY_MIN, RETRY_MAX = timedelta(minutes=1), timedelta(hours=1)
MAX_ITEMS = 5000  # that are held in memory; the next attempt continues
WINDOW_REQUESTS = 500  # requests whose history is read together
WINDOW_GAP = timedelta(minutes=10)  # after a longer pause the history is read separately
WAITS_FOR_RECONCILIATION = timedelta(days=3)  # for the request ids of attempts whose response was never seen
REPORT_AFTER = timedelta(hours=6)  # of failures; a missing permission is reported immediately
NOT_FOUND = "history_item_not_found"

log = structlog.get_logger(__name__)


def delete_for_patient(patient_id: uuid.UUID) -> None:
    """Let all requests of this patient be deleted. Call it in the transaction that erases the patient."""
    HistoryDeletion.objects.create(patient=patient_id, covers_until=timezone.now() + SETTLE_TIME)


def delete_for_voices(voices: QuerySet[Voice]) -> None:
    """Let all requests in these voices be deleted. Call it in the transaction that withdraws the voices."""
    covers_until = timezone.now() + SETTLE_TIME
    for voice in voices:
        HistoryDeletion.objects.create(
            patient=voice.patient_id, voice=voice.pk, provider_voice_id=voice.provider_id, covers_until=covers_until
        )


def sweep() -> None:
    """Make an attempt for each deletion that is due, and open or resolve the incident about those that fail."""
    run_steps(_attempt_due, _report)


def _attempt_due() -> None:
    deadline = time.monotonic() + RUN_TIME_S
    due = _due().order_by("next_attempt_at", "created_at").values_list("pk", flat=True)
    process_each("history.delete", takewhile(lambda _: time.monotonic() < deadline, list(due[:100])), run)


def _due() -> QuerySet[HistoryDeletion]:
    unleased = Q(lease_until=None) | Q(lease_until__lte=Now())
    return HistoryDeletion.objects.filter(
        unleased, Q(next_attempt_at=None) | Q(next_attempt_at__lte=Now()), done_at=None
    )


def run(deletion_id: uuid.UUID) -> None:
    """Make one attempt. Does nothing if none is due, or if another worker makes one."""
    if not _due().filter(pk=deletion_id).update(lease_until=Now() + LEASE):
        return
    deletion = HistoryDeletion.objects.get(pk=deletion_id)
    row = HistoryDeletion.objects.filter(pk=deletion_id)
    try:
        columns = _continue(deletion)
    except (ProviderError, ProviderDataUnavailable) as error:
        reason = error.support_details if isinstance(error, ProviderError) else str(error)
        log.warning("history.deletion_delayed", deletion=str(deletion_id), reason=reason)
        row.update(
            lease_until=None,
            next_attempt_at=Now() + _delay(deletion.failures),
            failures=F("failures") + 1,
            failing_since=deletion.failing_since or timezone.now(),
            is_refused=isinstance(error, AuthorizationError),
            error=reason[:200],
        )
        return
    row.update(
        **{"lease_until": None, "failures": 0, "failing_since": None, "is_refused": False, "error": "", **columns}
    )


def _delay(failures: int) -> timedelta:
    delay: timedelta = min(RETRY_MIN * 2 ** min(failures, 10), RETRY_MAX)
    return delay * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


def _continue(deletion: HistoryDeletion) -> dict[str, object]:
    """Work on the present pass for up to RUN_TIME_S. Return the columns that change.

    Raises ProviderError or ProviderDataUnavailable.
    """
    is_first = not deletion.passes and deletion.cursor is None
    if not is_first and deletion.cursor is None and _waits_for_ids(deletion):
        return {"next_attempt_at": Now() + RETRY_MAX}
    began, deadline = timezone.now(), time.monotonic() + RUN_TIME_S
    with provider_usage.account_client() as client:
        delete_pass = _delete_of_patient if deletion.voice is None else _delete_of_voice
        if not delete_pass(client, deletion, deadline):
            return {"next_attempt_at": Now()}
    deletion.refresh_from_db(fields=["found"])
    columns: dict[str, object] = {"cursor": None, "found": 0, "passes": F("passes") + 1}
    if began < deletion.covers_until:
        return {**columns, "next_attempt_at": deletion.covers_until}
    if deletion.found or _waits_for_ids(deletion):
        return {**columns, "next_attempt_at": Now() + RETRY_MIN}
    log.info("history.deletion_completed", deletion=str(deletion.pk), deleted=deletion.deleted)
    return {**columns, "done_at": Now()}


def _waits_for_ids(deletion: HistoryDeletion) -> bool:
    """Whether reconciliation may still find the request ids of attempts whose response was never seen."""
    if deletion.voice is not None:
        return False
    recent = Q(started_at__gt=timezone.now() - WAITS_FOR_RECONCILIATION, started_at__lte=deletion.covers_until)
    return UsageEvent.objects.filter(recent, patient=deletion.patient, outcome=UsageEvent.Outcome.UNKNOWN).exists()


def _delete_of_patient(client: AccountClient, deletion: HistoryDeletion, deadline: float) -> bool:
    """Return whether the pass is complete. The row has its progress after each window of the ledger."""
    requests = UsageEvent.objects.filter(patient=deletion.patient, started_at__lte=deletion.covers_until)
    requests = requests.exclude(request_id="").order_by("started_at")
    cursor = deletion.cursor
    while time.monotonic() < deadline:
        following = requests if cursor is None else requests.filter(started_at__gt=cursor)
        times = list(following.values_list("started_at", flat=True)[:WINDOW_REQUESTS])
        if not times:
            return True
        start, end = times[0], _end_of_window(times)
        window = requests.filter(started_at__gte=start, started_at__lte=end)
        request_ids = set(window.values_list("request_id", flat=True))
        items = provider_usage.items_between(client, start, end)
        if not _delete_each(client, deletion, (item for item in items if match_key(item) in request_ids), deadline):
            return False
        cursor = end
        HistoryDeletion.objects.filter(pk=deletion.pk).update(cursor=cursor)
    return False


def _end_of_window(times: list[datetime]) -> datetime:
    """Return the last time before the first pause that is longer than WINDOW_GAP. `times` are in order."""
    for earlier, later in pairwise(times):
        if later - earlier > WINDOW_GAP:
            return earlier
    return times[-1]


def _delete_of_voice(client: AccountClient, deletion: HistoryDeletion, deadline: float) -> bool:
    """Return whether the pass is complete. A later attempt begins again: what was deleted is gone from the history."""
    items = client.history(voice_id=deletion.provider_voice_id)
    ours = (item for item in items if item.voice_id == deletion.provider_voice_id)
    return _delete_each(client, deletion, ours, deadline)


def _delete_each(
    client: AccountClient, deletion: HistoryDeletion, items: Iterator[HistoryItem], deadline: float
) -> bool:
    """Delete the items. Return whether all of them were deleted before the time was over.

    All pages are read first, because the next page is requested by the last item of the one before it.
    """
    row = HistoryDeletion.objects.filter(pk=deletion.pk)
    present = (item.item_id for item in items if not item.is_deleted)
    item_ids = list(islice(present, MAX_ITEMS))
    for item_id in item_ids:
        if time.monotonic() > deadline:
            return False
        row.update(found=F("found") + 1)
        try:
            client.delete_history_item(item_id)
        except ProviderError as error:
            if error.code != NOT_FOUND:
                raise
            continue  # another attempt has deleted it
        row.update(deleted=F("deleted") + 1)
    return len(item_ids) < MAX_ITEMS


def _report() -> None:
    """Open the incident if a deletion has failed for REPORT_AFTER or is refused. Resolve it if none is."""
    waiting = HistoryDeletion.objects.filter(done_at=None)
    failing = waiting.filter(Q(is_refused=True) | Q(failing_since__lte=Now() - REPORT_AFTER)).order_by("created_at")
    oldest = failing.first()
    if oldest is None:
        incidents.resolve_incident(incidents.Kind.HISTORY)
        return
    detail = f"Waiting deletions: {waiting.count()}, the oldest since {oldest.created_at:%Y-%m-%d %H:%M} UTC. "
    why = "The API key may not do it: " if oldest.is_refused else "The last error: "
    incidents.open_incident(incidents.Kind.HISTORY, detail=f"{detail}{why}{oldest.error}.")
