"""The rows that say what lies in the phrase cache, and the removal of both. Talks to the database: for threads.

Object first, row second, when they come and when they go: a process that is killed in between leaves an object that
nobody looks for, or a row that is found again. Nothing here may run inside a transaction: stores are slow.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice

import structlog
from django.db import transaction
from django.db.models import Case, F, QuerySet, Value, When
from django.utils import timezone

from tts.cache.entry import unpack
from tts.cache.stores import Store, StoreError
from tts.models import Clip, Phrase
from tts.text.segmenter import normalise
from voicecare.core import metrics

BATCH_SIZE = 500  # rows a statement
PRUNE_LIMIT = 1000  # rows, and objects without one, a call
MAX_CONSECUTIVE_FAILURES = 3  # then the store is away, and the rest is for the next time
ORPHAN_AGE_S = 3600.0  # by then the row of an object is written, if it ever will be

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
    """Writes the row of a clip that was made; made again, it keeps its hits. A greeting has a patient, no phrase."""
    if clip.patient_id is None:
        normal = normalise(text)
        phrases = Phrase.objects.for_language(clip.language).values_list("pk", "text")
        clip.phrase_id = next((pk for pk, phrase in phrases if normalise(phrase) == normal), None)
    Clip.objects.bulk_create([clip], update_conflicts=True, unique_fields=["digest"], update_fields=_UPDATED_FIELDS)


def add_hits(hits: Mapping[str, int]) -> None:
    """Adds them to the rows, all or none; what has no row any more is dropped."""
    with transaction.atomic():
        for digests in _batches(sorted(hits)):  # in one order, or two processes could wait for each other
            added = Case(*(When(digest=digest, then=Value(hits[digest])) for digest in digests), default=Value(0))
            Clip.objects.filter(digest__in=digests).update(hits=F("hits") + added, used_at=timezone.now())


def existing(digests: Iterable[str]) -> set[str]:
    """Those of them that have a row."""
    found: set[str] = set()
    for batch in _batches(digests):
        found.update(Clip.objects.filter(digest__in=batch).values_list("digest", flat=True))
    return found


def delete(clips: QuerySet[Clip], store: Store) -> list[str]:
    """Removes the objects of these clips, then their rows; returns the digests. Never raises for the store's sake.

    What the store does not give up keeps its row, and so does a clip that was made again meanwhile: the next call
    finds it.
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
    expired = Clip.objects.filter(expires_at__lte=datetime.fromtimestamp(now, UTC)).order_by("pk")
    return delete(expired.filter(pk__in=list(expired.values_list("pk", flat=True)[:PRUNE_LIMIT])), store)


def delete_orphans(store: Store, now: float, ttl_s: float) -> int:
    """Removes objects without a row: damaged, or older than an hour; returns how many. Never raises for the store."""
    removed = failures = 0
    try:
        for digest in islice(_digests_without_row(store), PRUNE_LIMIT):
            swept = _delete_if_orphan(store, digest, now, ttl_s)
            removed += bool(swept)
            failures = failures + 1 if swept is None else 0
            if failures == MAX_CONSECUTIVE_FAILURES:
                break
    except StoreError as error:
        report_store_failure("list", error)
    return removed


def _digests_without_row(store: Store) -> Iterator[str]:
    for digests in _batches(store.keys()):
        has_row = existing(digests)
        yield from (digest for digest in digests if digest not in has_row)


def _delete_if_orphan(store: Store, digest: str, now: float, ttl_s: float) -> bool | None:
    """Whether it was an orphan and is gone; None if the store failed."""
    try:
        packed = store.read(digest)
        if packed is None:
            return False
        entry = unpack(digest, packed)
        if entry is not None and now - ORPHAN_AGE_S < entry.expires_at - ttl_s <= now + ttl_s:
            return False
        store.delete(digest)
    except StoreError as error:
        report_store_failure("sweep", error)
        return None
    return True


def report_store_failure(work: str, error: StoreError) -> None:
    """Counts and logs it: a cache that fails does so without anybody hearing it."""
    metrics.PHRASE_STORE_ERRORS.labels(work).inc()
    log.warning("phrase_cache.store_failed", work=work, error=type(error.__cause__).__name__)


def _batches(digests: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(digests)
    while batch := list(islice(rest, BATCH_SIZE)):
        yield batch
