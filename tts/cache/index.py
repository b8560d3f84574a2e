"""The `Clip` rows that describe the clips in the store, and the deletion of clips from the store and the database.

Both writing and deleting a clip begin with the object in the store. The row follows. If the process is killed in
between, writing leaves an object without a row, which `delete_orphans` removes later. Deleting leaves a row without an
object, which the next deletion finds again.

All functions query the database, so call them from a thread. Do not call them inside a transaction, because stores are
slow.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice

import structlog
from django.db import transaction
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.utils import timezone

from tts.cache.entry import unpack
from tts.cache.stores import Store, StoreError
from tts.models import Clip, Phrase
from tts.text.segmenter import normalise
from voicecare.core import metrics

BATCH_SIZE = 500  # rows per statement
PRUNE_LIMIT = 1000  # expired rows, and objects without a row, per call
MAX_CONSECUTIVE_FAILURES = 3  # then the store counts as unavailable, and the next call continues
FAILURE_MEMORY = timedelta(days=2)  # so that the warmer tries other clips first
ORPHAN_AGE_S = 3600.0  # a younger object may still get its row

_UPDATED_FIELDS = [
    "voice",
    "phrase",
    "patient",
    "language",
    "speed",
    "format",
    "characters",
    "size",
    "created_at",
    "expires_at",
]

log = structlog.get_logger(__name__)


def upsert(clip: Clip, text: str) -> None:
    """Write the row of a stored clip. A clip that was generated again keeps its number of hits.

    Sets `clip.phrase` by looking up `text`, the text of the phrase as it is written. The row of a greeting has a
    patient and no phrase.
    """
    if clip.patient_id is None:
        normal = normalise(text)
        phrases = Phrase.objects.for_language(clip.language).values_list("pk", "text")
        clip.phrase_id = next((pk for pk, phrase in phrases if normalise(phrase) == normal), None)
    Clip.objects.bulk_create([clip], update_conflicts=True, unique_fields=["digest"], update_fields=_UPDATED_FIELDS)


def add_hits(hits: Mapping[str, int]) -> None:
    """Add the number of hits of each digest to its row, in one transaction. Ignores digests without a row."""
    with transaction.atomic():
        for digests in _batches(sorted(hits)):  # sorted: with the same lock order two processes cannot deadlock
            added = Case(*(When(digest=digest, then=Value(hits[digest])) for digest in digests), default=Value(0))
            Clip.objects.filter(digest__in=digests).update(hits=F("hits") + added, used_at=timezone.now())


def existing(digests: Iterable[str]) -> set[str]:
    """Return those of the digests that have a row."""
    found: set[str] = set()
    for batch in _batches(digests):
        found.update(Clip.objects.filter(digest__in=batch).values_list("digest", flat=True))
    return found


def delete(clips: QuerySet[Clip], store: Store) -> list[str]:
    """Delete the objects of these clips in the store, then their rows. Return the digests of the deleted objects.

    If the store fails to delete an object, its row stays, so that the next call finds it again. The row of a clip that
    was generated again in the meantime stays as well. Never raises StoreError.
    """
    removed: list[str] = []
    failures = 0
    for pk, digest, created_at in list(clips.order_by("pk").values_list("pk", "digest", "created_at")):
        try:
            store.delete(digest)
        except StoreError as error:
            report_store_failure("delete", error)
            failures += 1
            if failures == MAX_CONSECUTIVE_FAILURES:
                break
        else:
            Clip.objects.filter(pk=pk, created_at=created_at).delete()
            removed.append(digest)
            failures = 0
    return removed


def delete_expired(store: Store, now: float) -> list[str]:
    """Delete expired clips, at most PRUNE_LIMIT, and return their digests.

    The row of a clip that could not be generated (`size` 0) stays for FAILURE_MEMORY after its expiry time.
    """
    time = datetime.fromtimestamp(now, UTC)
    kept = Q(size=0, expires_at__gt=time - FAILURE_MEMORY)
    expired = Clip.objects.filter(expires_at__lte=time).exclude(kept).order_by("pk")
    return delete(expired.filter(pk__in=list(expired.values_list("pk", flat=True)[:PRUNE_LIMIT])), store)


def delete_orphans(store: Store, now: float, ttl_s: float) -> int:
    """Delete objects without a row that are damaged or older than an hour, and return their number.

    `now` is a Unix time in seconds. Never raises StoreError.
    """
    removed = failures = 0
    try:
        without_row = (digest for digests in _batches(store.keys()) for digest in set(digests) - existing(digests))
        for digest in islice(without_row, PRUNE_LIMIT):
            try:
                packed = store.read(digest)
                entry = None if packed is None else unpack(digest, packed)
                # Written at `expires_at - ttl_s`. That may be in the future: the clock of another machine may be ahead.
                is_new = entry is not None and now - ORPHAN_AGE_S < entry.expires_at - ttl_s <= now + ttl_s
                if packed is not None and not is_new:
                    store.delete(digest)
                    removed += 1
            except StoreError as error:
                report_store_failure("sweep", error)
                failures += 1
                if failures == MAX_CONSECUTIVE_FAILURES:
                    break
            else:
                failures = 0
    except StoreError as error:
        report_store_failure("list", error)
    return removed


def report_store_failure(work: str, error: StoreError) -> None:
    """Count and log a failure of the store. Patients do not notice it, so operators have to."""
    metrics.PHRASE_STORE_ERRORS.labels(work).inc()
    log.warning("phrase_cache.store_failed", work=work, error=type(error.__cause__).__name__)


def _batches(digests: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(digests)
    while batch := list(islice(rest, BATCH_SIZE)):
        yield batch
