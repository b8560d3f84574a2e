"""The `Clip` rows that describe the entries of the phrase cache, and the deletion of entries and rows.

Writing and deleting both begin with the object in the store. The row follows. If the process is killed in between,
writing leaves an object without a row, which `delete_orphans` removes later, and deleting leaves a row, which the next
call finds again.

All functions query the database, so call them from a thread. Do not call them inside a transaction, because stores are
slow.
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

BATCH_SIZE = 500  # rows per statement
PRUNE_LIMIT = 1000  # expired rows, and objects without a row, per call
MAX_CONSECUTIVE_FAILURES = 3  # then the store is unavailable, and the next call tries the rest
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
    """Writes the row of a stored clip. A clip that was generated again keeps its hits.

    A greeting keeps `phrase` empty, because it has a patient.
    """
    if clip.patient_id is None:
        normal = normalise(text)
        phrases = Phrase.objects.for_language(clip.language).values_list("pk", "text")
        clip.phrase_id = next((pk for pk, phrase in phrases if normalise(phrase) == normal), None)
    Clip.objects.bulk_create([clip], update_conflicts=True, unique_fields=["digest"], update_fields=_UPDATED_FIELDS)


def add_hits(hits: Mapping[str, int]) -> None:
    """Adds hits to the rows in one transaction. Ignores digests without a row."""
    with transaction.atomic():
        for digests in _batches(sorted(hits)):  # sorted: with the same lock order two processes cannot deadlock
            added = Case(*(When(digest=digest, then=Value(hits[digest])) for digest in digests), default=Value(0))
            Clip.objects.filter(digest__in=digests).update(hits=F("hits") + added, used_at=timezone.now())


def existing(digests: Iterable[str]) -> set[str]:
    """Returns the digests that have a row."""
    found: set[str] = set()
    for batch in _batches(digests):
        found.update(Clip.objects.filter(digest__in=batch).values_list("digest", flat=True))
    return found


def delete(clips: QuerySet[Clip], store: Store) -> list[str]:
    """Deletes the objects of these clips, then their rows, and returns the digests. Never raises StoreError.

    A row stays if the store failed to delete its object, or if the clip was generated again in the meantime. The next
    call finds it.
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
    """Deletes objects without a row if they are damaged or older than an hour, and returns how many.

    `now` is a Unix time in seconds. Never raises StoreError.
    """
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
    """Returns whether the object was an orphan and was deleted, or None if the store failed.

    `expires_at - ttl_s` is the time of writing. It may be in the future, by up to `ttl_s`, because the clock of
    another machine may be ahead.
    """
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
    """Counts and logs the failure. Patients do not notice it, so operators have to."""
    metrics.PHRASE_STORE_ERRORS.labels(work).inc()
    log.warning("phrase_cache.store_failed", work=work, error=type(error.__cause__).__name__)


def _batches(digests: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(digests)
    while batch := list(islice(rest, BATCH_SIZE)):
        yield batch
